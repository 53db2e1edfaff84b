"""Penalties that pull weights, or the scales of channels, towards zero while a network is trained."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.network.layers import PRODUCERS


@dataclass(frozen=True, slots=True)
class GammaL1:
    """`strength` x the sum of |gamma| over all batch norms (Network Slimming, Liu et al. 2017, 1708.06519).

    Attributes:
        strength: Of the penalty; :func:`autoprune.training.slimming.usual_strength` suits the length of a training.
        shifts: Also of |beta|, which is not in the paper. A channel whose gamma is 0 still puts out ReLU(beta), which
            the next batch norm takes out again, so that nothing in the loss pulls it to 0; cut without measuring batch
            norms anew, it is missed.

    """

    strength: float
    shifts: bool = False

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the penalty on `module`, a scalar."""
        pulled = [*_gammas(module), *(_betas(module) if self.shifts else ())]
        return self.strength * sum((each.abs().sum() for each in pulled), _nothing(module))


@dataclass(frozen=True, slots=True)
class GammaSmoothL1:
    """The same with smooth L1: gamma^2 / (2 `beta`) below `beta`, |gamma| - `beta` / 2 above."""

    strength: float
    beta: float = 0.01

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the penalty on `module`, a scalar."""
        parts = (
            F.smooth_l1_loss(gamma, gamma.new_zeros(gamma.shape), reduction="sum", beta=self.beta)
            for gamma in _gammas(module)
        )
        return self.strength * sum(parts, _nothing(module))


@dataclass(frozen=True, slots=True)
class WeightL1:
    """`strength` x the sum of |w| over the weights of all convolutions and linear layers (Han et al. 2015, 1506.02626).

    Their L2 penalty is the weight decay of the training's settings.
    """

    strength: float

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the penalty on `module`, a scalar."""
        layers = (layer for layer in module.modules() if isinstance(layer, PRODUCERS))
        return self.strength * sum((layer.weight.abs().sum() for layer in layers), _nothing(module))


def _gammas(module: nn.Module) -> list[Tensor]:
    """Return the scales of all batch norms."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]


def _betas(module: nn.Module) -> list[Tensor]:
    """Return the shifts of all batch norms."""
    return [layer.bias for layer in module.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]


def _nothing(module: nn.Module) -> Tensor:
    """Return the zero that sums begin with, where the module is."""
    return next(module.parameters()).new_zeros(())
