"""What stands behind a layer, up to the activation: a batch norm, an addition of another branch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.network.layers import Add
from autoprune.reconstruction.response import bounds_of

#: Channels with a smaller gain, relative to the median of their batch norm, do not take over another branch's error.
_LEAST_GAIN = 0.05


@dataclass(frozen=True, slots=True)
class Tail:
    """The operations behind a layer that nothing else uses.

    Attributes:
        norm: The unpruned network's batch norm, directly behind.
        branch: Name of the node that is added next.
        bounds: Lower and upper bound of the activation after that; None where there is none with bounds.

    """

    norm: nn.BatchNorm2d | None
    branch: str | None
    bounds: tuple[float, float] | None


def tail_behind(node: fx.Node, layers: Mapping[str, nn.Module]) -> Tail:
    """Find what stands behind `node` in a network with these `layers`, by name."""

    def following(node: fx.Node) -> tuple[fx.Node, nn.Module] | None:
        users = list(node.users)
        if len(users) != 1 or users[0].op != "call_module":
            return None
        return users[0], layers[str(users[0].target)]

    norm: nn.BatchNorm2d | None = None
    branch: str | None = None
    after = following(node)
    if after is not None and isinstance(after[1], nn.BatchNorm2d):
        node, norm = after[0], after[1]
        after = following(node)
    if after is not None and isinstance(after[1], Add):
        others = [source.name for source in after[0].all_input_nodes if source is not node]
        if len(others) != 1:  # added to itself
            return Tail(norm, None, None)
        branch, after = others[0], following(after[0])
    return Tail(norm, branch, None if after is None else bounds_of(after[1]))


def gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what a batch norm in eval mode multiplies by and adds, ``(channels,)`` each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - norm.running_mean * gain


def owed(missing: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
    """Return the outputs of a layer that make good what is `missing` behind its batch norm, ``(n, C, H, W)``."""
    if norm is None:
        return missing
    gain, _ = gain_and_shift(norm)
    useful = gain.abs() > _LEAST_GAIN * gain.abs().median()  # a channel that hardly gets through cannot pay
    safe = torch.where(useful, 1 / torch.where(useful, gain, 1.0), 0.0)
    return missing * safe.to(missing.device).view(1, -1, 1, 1)
