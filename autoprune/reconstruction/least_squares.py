"""Least squares from a Gram matrix: the best weights of a layer that has lost inputs, without touching the data."""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Pull towards the trained weights per feature and sample, relative to the variance of a feature. A Gram matrix of few
#: samples is noisy by about ``sqrt(features / samples)``; the pull keeps least squares from fitting that noise.
PULL = 1.0

#: Spread of features that are always zero: the equations then keep the trained weights.
TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Weights of one linear map on the features it keeps.

    Attributes:
        weight: ``(outputs, kept features)`` float64.
        bias: ``(outputs,)`` float64.
        singular: Whether there was no stable solution; the weights are then the trained ones.

    """

    weight: Tensor
    bias: Tensor
    singular: bool


def pull(features: int, samples: int) -> float:
    """Return the ridge, relative to the variance of a feature, for a matrix of so many features and samples."""
    return PULL * features / samples


def damped(gram: Tensor, ridge: float) -> Tensor:
    """Return a copy of `gram`, ``(features + 1, features + 1)``, with the pull on the diagonal; none on the bias."""
    result = gram.clone()
    diagonal = result.diagonal()[:-1]
    diagonal += ridge * spread(gram)
    return result


def spread(gram: Tensor) -> float:
    """Return the mean variance of the features; not below a millionth of their mean square, nor below 1e-12."""
    squares = float(gram.diagonal()[:-1].mean())
    return max(squares - float(gram[:-1, -1].square().mean()), 1e-6 * squares, TINY)


def solve_kept(
    gram: Tensor, weight: Tensor, bias: Tensor, kept: Tensor, *, fit_bias: bool = True, ridge: float
) -> Solution:
    """Return the weights on `kept` features that come closest to what all features gave.

    Minimises ``tr((V - W) H (V - W)^T)`` over V that is zero off `kept`, with ``H = G + ridge * spread * I``:
    ``V_S = W_S + W_R H_RS H_SS^-1`` for kept S and removed R (He, Zhang & Sun 2017, 1707.06168, eq. 5 by normal
    equations; for every kernel size). Keeping everything changes nothing.

    Args:
        gram: ``(features + 1, features + 1)`` float64, the last row and column of the constant 1.
        weight: Trained weights, ``(outputs, features)`` float64.
        bias: Trained biases, ``(outputs,)`` float64.
        kept: Kept features, ascending, ``(n_kept,)`` int64; not empty.
        fit_bias: Whether the bias may change.
        ridge: Relative pull towards the trained weights.

    """
    features = weight.shape[1]
    removed = torch.ones(features, dtype=torch.bool).index_fill_(0, kept, False).nonzero()[:, 0]
    if len(removed) == 0:
        return Solution(weight, bias, singular=False)
    matrix = damped(gram, ridge)
    free = torch.cat([kept, torch.tensor([features])]) if fit_bias else kept
    lost = weight[:, removed]
    across = matrix[free][:, removed] @ lost.T
    factor, info = torch.linalg.cholesky_ex(matrix[free][:, free])
    if int(info) != 0:
        return Solution(weight[:, kept], bias, singular=True)
    change = torch.cholesky_solve(across, factor)
    if not bool(torch.isfinite(change).all()):
        return Solution(weight[:, kept], bias, singular=True)
    return Solution(
        weight[:, kept] + change[: len(kept)].T,
        bias + change[-1] if fit_bias else bias,
        singular=False,
    )
