"""Soft masks over channels, trained together with the weights until many of them are exactly 0.

Minimised over weights W and factors m, one for each channel that can go: ``L(W, m) + strength * sum |m|`` (Huang & Wang
2018, 1707.01213, eq. 3), by gradient steps on L and, after each, the proximal step of the penalty on m. A channel whose
factor is 0 puts out nothing at all, so that it can be cut as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria.gradients import gates
from autoprune.errors import SearchError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, own_copy
from autoprune.pruning.plan import Plan
from autoprune.recovery.finetune import FinetuneSettings, Progress, finetune
from autoprune.training.rounds import removed_count
from autoprune.training.slimming import lowest_units


@dataclass(frozen=True, slots=True)
class SoftMasks:
    """What the training left.

    Attributes:
        network: Trained, the factors multiplied into its layers.
        groups: Of the network.
        factors: Of every group with soft masks, by name, one per unit.
        losses: Mean loss of every epoch, without the penalty.

    """

    network: Network
    groups: ChannelGroups
    factors: Mapping[str, NDArray[np.float64]]
    losses: tuple[float, ...]

    def plan(self, ratio: float | None = None) -> Plan:
        """Return the plan that removes the channels of smallest factors; of every group at least one stays.

        Args:
            ratio: Share of all channels with factors that goes, rounded; None for all whose factor is 0.

        Raises:
            SearchError: `ratio` is out of range.

        """
        if ratio is not None and not 0 <= ratio < 1:
            raise SearchError(f"expected the share of channels to remove, from 0 to below 1, found {ratio}")
        chosen = [group for group in self.groups.groups if group.name in self.factors]
        sizes = np.full(self.groups.n_units, np.inf)
        for group in chosen:
            sizes[list(group.units)] = np.abs(self.factors[group.name])
        units = [np.array(group.units) for group in chosen]
        all_sizes = sizes[np.concatenate(units)]
        count = int((all_sizes == 0).sum()) if ratio is None else removed_count(len(all_sizes), ratio)
        removed = lowest_units(sizes, units, count)
        return Plan(
            {g.name: tuple(i for i, unit in enumerate(g.units) if unit not in removed) for g in chosen},
            self.network.fingerprint(),
        )


def train_soft_masks(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    training: FinetuneSettings,
    strength: float,
    *,
    include_residual: bool = False,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> SoftMasks:
    """Train a network and the factors of its channels, which begin at 1.

    A factor stands behind everything that makes its channel, behind the batch norm where there is one. Only where
    activations keep 0, as ReLU does, is a channel whose factor is 0 without any effect.

    Args:
        network: Trained or not; not changed.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised.
        labels: Their classes, ``(n,)`` int64.
        training: How to train; by SGD, whose steps the proximal one belongs to.
        strength: Of the penalty; :func:`autoprune.training.slimming.usual_strength` suits the length of a training.
        include_residual: Also of residual streams.
        progress: Called after each step; what it raises ends the training.
        precision: As in fine-tuning.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        SearchError: Another optimizer, a negative strength, or no channel that can go.
        DatasetError: Images and labels that cannot be trained on.
        NumericalError: The training diverged.

    """
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=include_residual)
    if training.optimizer != "sgd" or strength < 0 or not chosen:
        raise SearchError(
            "soft masks need optimizer 'sgd', a strength of at least 0 and channels that can be removed, found "
            f"{training.optimizer!r}, {strength:g} and {len(chosen)} groups of channels"
        )
    masked = with_factors(network, groups, chosen)
    steps_per_epoch = training.steps_per_epoch(len(inputs))

    def shrink(module: nn.Module, done: int) -> None:
        rate = training.learning_rate_at(done - 1, steps_per_epoch) / (1 - training.momentum)  # of a steady gradient
        factors = _factors_of(module)
        with torch.no_grad():
            factors.copy_(soft_threshold(factors, rate * strength))

    trained, history = finetune(
        masked.module,
        inputs,
        labels,
        training,
        after_step=shrink,
        progress=progress,
        precision=precision,
        device=device,
    )
    found = _factors_of(trained).detach().double().numpy()
    return SoftMasks(
        without_factors(Network(trained, network.input_shape, network.shapes)),
        groups,
        {group.name: found[list(group.units)] for group in chosen},
        tuple(epoch.loss for epoch in history),
    )


def soft_threshold(values: Tensor, threshold: float) -> Tensor:
    """Return ``argmin_x (x - values)^2 / 2 + threshold * |x|``: all values nearer to 0, those within reach at 0."""
    return values.sign() * (values.abs() - threshold).clamp(min=0)


class SoftMask(nn.Module):
    """A layer, and behind it a factor on each of its channels.

    Attributes:
        layer: Makes the channels.
        factors: Of all units of the network, ``(n_units,)``, the same parameter in every soft mask; others than those
            chosen are not used.

    """

    ids: Tensor
    chosen: Tensor

    def __init__(self, layer: nn.Module, factors: nn.Parameter, ids: Tensor, chosen: Tensor, dim: int) -> None:
        super().__init__()
        self.layer, self.factors, self.dim = layer, factors, dim
        self.register_buffer("ids", ids)  # unit of each channel
        self.register_buffer("chosen", chosen)  # whether it has a factor

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the factors."""
        made: Tensor = self.layer(x)
        shape = [1] * made.dim()
        shape[self.dim] = -1
        return made * self.scale().view(shape)

    def scale(self) -> Tensor:
        """Return the factor of each channel, 1 without one."""
        return torch.where(self.chosen, self.factors[self.ids], 1.0)


def with_factors(network: Network, groups: ChannelGroups, chosen: Sequence[ChannelGroup]) -> Network:
    """Return a copy of `network` with a factor of 1 on each channel of the chosen groups."""
    factors = nn.Parameter(torch.ones(groups.n_units))
    units = torch.zeros(groups.n_units, dtype=torch.bool)
    for group in chosen:
        units[list(group.units)] = True
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for name in gates(network, groups):
        channels = groups.layers[name].output
        assert channels is not None, "a gate is where there are channels"
        ids = torch.from_numpy(channels.ids)
        if bool(units[ids].any()):
            layers[name] = SoftMask(layers[name], factors, ids, units[ids], channels.dim)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def without_factors(network: Network) -> Network:
    """Return the same function without soft masks: each factor multiplied into the layer that makes its channel."""
    layers = {
        name: _folded(layer.layer, layer.scale().detach()) if isinstance(layer, SoftMask) else own_copy(layer)
        for name, layer in network.layers().items()
    }
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _folded(layer: nn.Module, scale: Tensor) -> nn.Module:
    """Return a layer whose channels are multiplied by `scale`, ``(C,)``."""
    assert isinstance(layer, (nn.BatchNorm2d, *PRODUCERS))
    clone = own_copy(layer)
    weight = clone.get_parameter("weight")
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        blocks = weight.detach().view(layer.groups, -1, *weight.shape[1:])
        weight.data = (blocks * scale.view(layer.groups, 1, -1, 1, 1)).view_as(weight)
    else:
        weight.data = weight.detach() * scale.view(-1, *[1] * (weight.dim() - 1))
    if layer.bias is not None:
        clone.get_parameter("bias").data = layer.bias.detach() * scale
    return clone


def _factors_of(module: nn.Module) -> nn.Parameter:
    """Return the one parameter of all soft masks."""
    return next(layer.factors for layer in module.modules() if isinstance(layer, SoftMask))
