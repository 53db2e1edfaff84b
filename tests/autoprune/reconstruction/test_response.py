"""Least squares of one layer, as it is and through the activation behind it."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from autoprune.reconstruction.response import Response, fit


def _layer(seed: int, samples: int = 400, features: int = 12, outputs: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches of 8 of 12 features, what all 12 gave, and the weights on the 8."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator)
    rows = torch.randn(1, samples, features, generator=generator) @ mixing
    weight = torch.randn(1, features + 1, outputs, generator=generator)
    wanted = rows @ weight[:, :-1] + weight[:, -1:]
    present = torch.cat([weight[:, :8], weight[:, -1:]], dim=1).double()
    return rows[:, :, :8].contiguous(), wanted, present


def _outputs(rows: Tensor, solved: Tensor) -> Tensor:
    return rows @ solved[:, :-1].float() + solved[:, -1:].float()


def _relu(wanted: Tensor, scale: float = 1.0, high: float = float("inf")) -> Response:
    outputs = wanted.shape[2]
    shift = 0.3 * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9))
    return Response(torch.full((1, 1, outputs), scale), shift, 0.0, high)


def _activation(response: Response, outputs: Tensor) -> Tensor:
    return (outputs * response.scale + response.shift).clamp(response.low, response.high)


@pytest.mark.parametrize("fit_bias", [True, False])
def test_without_an_activation_it_is_least_squares(fit_bias: bool) -> None:
    rows, wanted, present = _layer(0)
    solved = fit(rows, wanted, present, ridge=0.0, fit_bias=fit_bias)
    assert solved is not None
    x, y = rows[0].double().numpy(), wanted[0].double().numpy()
    if fit_bias:
        x = np.column_stack([x, np.ones(len(x))])
    else:
        y = y - present[0, -1].numpy()
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(solved[0, : x.shape[1]], expected, rtol=1e-4, atol=1e-5)
    assert fit_bias or torch.equal(solved[0, -1], present[0, -1])


@pytest.mark.parametrize(("scale", "high"), [(1.0, float("inf")), (-0.7, float("inf")), (0.5, 1.0)])
def test_every_round_comes_closer_to_the_activation(scale: float, high: float) -> None:
    rows, wanted, present = _layer(1)
    response = _relu(wanted, scale, high)
    target, distances, errors = _activation(response, wanted), [], []
    for rounds in range(6):
        solved = fit(rows, wanted, present, ridge=0.0, fit_bias=True, response=response, rounds=rounds)
        assert solved is not None
        outputs = _outputs(rows, solved)
        nearest = response.nearest(wanted, outputs, slice(None))
        assert torch.allclose(_activation(response, nearest), target, atol=1e-4)  # what was aimed at is right
        distances.append(float((nearest - outputs).square().mean()))
        errors.append(float((_activation(response, outputs) - target).square().mean()))
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in itertools.pairwise(distances))
    assert errors[-1] < errors[0]


def test_outputs_that_do_not_get_through_are_fitted_as_they_are() -> None:
    rows, wanted, present = _layer(2)
    dead = Response(torch.zeros(1, 1, wanted.shape[2]), torch.full((1, 1, wanted.shape[2]), -1.0), 0.0, float("inf"))
    plain = fit(rows, wanted, present, ridge=0.1, fit_bias=True)
    through = fit(rows, wanted, present, ridge=0.1, fit_bias=True, response=dead)
    assert plain is not None
    assert through is not None
    torch.testing.assert_close(plain, through, rtol=1e-5, atol=1e-6)


def test_a_singular_layer_says_so() -> None:
    rows, wanted, present = _layer(3, samples=4)
    assert fit(rows, wanted, present, ridge=0.0, fit_bias=True) is None
