"""Least squares for one layer, through the activation behind it: outputs that it cuts off need not be met.

Behind a ReLU every output below zero is as good as any other below zero. Fitting the activation instead of the output
frees the solution for what gets through (Zhang, Zou, He & Sun 2016, 1505.06798, section 3.2, solve the same problem by
relaxation). Here targets are moved, again and again, to the nearest outputs that give the wanted activation, and the
equations are solved for those: a projection onto convex sets, so the squared distance never grows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.reconstruction.gram import gram_of, product_of
from autoprune.reconstruction.least_squares import damped

#: Times that the targets are moved and the equations solved again; the gain is nearly all there after four.
ROUNDS = 5

#: Samples of one product, so that temporaries stay small.
_CHUNK = 8000


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What becomes of a layer's output y: ``clamp(scale * y + shift, low, high)``.

    Attributes:
        scale: Gain of a batch norm behind the layer, ``(maps, 1, outputs per map)``; 0 where nothing gets through.
        shift: Its shift, plus another branch that is added, ``(maps, samples or 1, outputs per map)``.
        low: Lower bound of the activation.
        high: Upper bound of the activation.

    """

    scale: Tensor
    shift: Tensor
    low: float
    high: float

    def nearest(self, wanted: Tensor, present: Tensor, samples: slice) -> Tensor:
        """Return the outputs next to `present` with the activation that `wanted` gives, ``(maps, n, outputs)``."""
        shift = self.shift if self.shift.shape[1] == 1 else self.shift[:, samples]
        target, now = wanted * self.scale + shift, present * self.scale + shift
        nearest = torch.where(target <= self.low, now.clamp(max=self.low), target)
        nearest = torch.where(target >= self.high, now.clamp(min=self.high), nearest)
        moved = (nearest != target) & (self.scale != 0)
        return torch.where(moved, (nearest - shift) / torch.where(self.scale == 0, 1.0, self.scale), wanted)


def bounds_of(layer: nn.Module) -> tuple[float, float] | None:
    """Return lower and upper bound of an activation that is the identity between them; None for all others."""
    if isinstance(layer, nn.ReLU):
        return 0.0, float("inf")
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        return float(layer.min_val), float(layer.max_val)
    return None


def fit(
    rows: Tensor,
    wanted: Tensor,
    present: Tensor,
    *,
    ridge: float,
    fit_bias: bool,
    response: Response | None = None,
    rounds: int = ROUNDS,
) -> Tensor | None:
    """Solve ``V = argmin |[X 1] V - Y|^2``, through `response` if given, with a pull to the present weights.

    The Gram matrix is formed and the equations are solved in float64; products with residuals are formed in float32,
    some thousand samples at a time, and added up in float64.

    Args:
        rows: Patches X, ``(maps, samples, features)`` float32.
        wanted: What the layer should put out, Y, ``(maps, samples, outputs per map)`` float32.
        present: Weights and, last, the bias that the layer has, ``(maps, features + 1, outputs per map)`` float64.
        ridge: Relative pull, see :func:`autoprune.reconstruction.least_squares.damped`.
        fit_bias: Whether the bias may change.
        response: What becomes of the outputs; None where they are used as they are.
        rounds: Solutions after the first one, each for targets moved to the one before.

    Returns:
        V, ``(maps, features + 1, outputs per map)`` float64; None where the equations are singular.

    """
    samples = rows.shape[1]
    chunks = [slice(start, start + _CHUNK) for start in range(0, samples, _CHUNK)]
    gram = torch.stack([gram_of(rows[:, at].double()) for at in chunks]).sum(0) / samples
    size = gram.shape[1] if fit_bias else gram.shape[1] - 1
    factor, info = torch.linalg.cholesky_ex(torch.stack([damped(each, ridge) for each in gram])[:, :size, :size])
    if bool(info.any()):
        return None
    solved = present
    for _ in range(1 if response is None else 1 + rounds):
        pull = gram @ (solved - present)
        for at in chunks:
            outputs = rows[:, at] @ solved[:, :-1].float() + solved[:, -1:].float()
            targets = wanted[:, at]
            if response is not None and solved is not present:
                targets = response.nearest(targets, outputs, at)
            pull += product_of(rows[:, at], targets - outputs).double() / samples
        solved = present.clone()
        solved[:, :size] += torch.cholesky_solve(pull[:, :size], factor)
        if not bool(torch.isfinite(solved).all()):
            return None
    return solved
