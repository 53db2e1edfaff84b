"""Surgery: a plan applied to a network gives a new, physically smaller network, or the masked one of full size.

The wiring never changes: every layer that touches a removed channel is replaced by a smaller copy, so building a
candidate costs milliseconds. The original is never modified and shares no tensor with the result.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from autoprune.groups.channel_group import ChannelGroups, is_depthwise
from autoprune.groups.channels import Channels, LayerChannels
from autoprune.network.layers import Constant, Pad, Reshape, Slice
from autoprune.network.network import Network, own_copy, shallow_copy
from autoprune.pruning.plan import Plan

Keep = Tensor  # (n_kept,) int64: positions that stay


def prune(network: Network, groups: ChannelGroups, plan: Plan) -> fx.GraphModule:
    """Return a new module without the channels that `plan` removes, in eval mode.

    Raises:
        PlanError: The plan does not fit the network.

    """
    plan.check(groups)
    alive = plan.kept_units(groups)
    layers = {name: _cut(layer, groups.layers[name], alive) for name, layer in network.layers().items()}
    return network.with_layers(layers)


def mask(network: Network, groups: ChannelGroups, plan: Plan) -> fx.GraphModule:
    """Return a full-size copy in which nothing that `plan` removes has any effect: what :func:`prune` must equal.

    Weights that produce or consume a removed channel are zero; no shape changes.

    Raises:
        PlanError: The plan does not fit the network.

    """
    plan.check(groups)
    alive = plan.kept_units(groups)
    layers = {name: _silence(layer, groups.layers[name], alive) for name, layer in network.layers().items()}
    return network.with_layers(layers)


def _kept(channels: Channels | None, alive: NDArray[np.bool_]) -> Keep | None:
    """Positions of `channels` that stay; None where all do."""
    if channels is None:
        return None
    mask = alive[channels.ids]
    return None if mask.all() else torch.from_numpy(np.flatnonzero(mask))


def _pick(tensor: Tensor, dim: int, keep: Keep | None) -> Tensor:
    """Select along `dim`; always a copy of its own."""
    detached = tensor.detach()
    return detached.clone() if keep is None else detached.index_select(dim, keep.to(detached.device))


def _cut(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Return the smaller layer."""
    rule = _CUTS.get(type(layer))
    return own_copy(layer) if rule is None else rule(layer, channels, alive)


def _set(layer: nn.Module, name: str, dim: int, keep: Keep | None) -> None:
    """Replace a parameter or buffer of our own copy by its selection along `dim`."""
    parameter = layer._parameters.get(name)
    if parameter is not None:
        layer._parameters[name] = nn.Parameter(_pick(parameter, dim, keep), parameter.requires_grad)
    buffer = layer._buffers.get(name)
    if buffer is not None:
        layer._buffers[name] = _pick(buffer, dim, keep)


def _resize(layer: nn.Module, **sizes: int) -> None:
    """Note the new sizes of our own copy; past nn.Module's attribute checks, which cost more than the cut."""
    layer.__dict__.update(sizes)


def _cut_convolution(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Cut a (transposed) convolution on both sides."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    out = _kept(channels.output, alive)
    into = _kept(channels.inputs[0], alive)
    clone = shallow_copy(layer)
    assert isinstance(clone, nn.Conv2d | nn.ConvTranspose2d)
    in_channels = layer.in_channels if into is None else len(into)
    _resize(clone, in_channels=in_channels, out_channels=layer.out_channels if out is None else len(out))
    out_dim, in_dim = (0, 1) if isinstance(layer, nn.Conv2d) else (1, 0)
    if is_depthwise(layer):
        _resize(clone, groups=in_channels)
        if isinstance(layer, nn.Conv2d):
            _set(clone, "weight", 0, out)
        else:  # (in, out / groups, k, k): the outputs of one input go together
            _set(clone, "weight", 0, into)
    elif layer.groups > 1:
        # All groups keep the same offsets: on the dimension that holds one group only, those of the first.
        per_group = (layer.in_channels if isinstance(layer, nn.Conv2d) else layer.out_channels) // layer.groups
        whole, shared = (out, into) if isinstance(layer, nn.Conv2d) else (into, out)
        _set(clone, "weight", 0, whole)
        _set(clone, "weight", 1, None if shared is None else shared[shared < per_group])
    else:
        _set(clone, "weight", out_dim, out)
        _set(clone, "weight", in_dim, into)
    _set(clone, "bias", 0, out)
    return clone


def _cut_linear(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Cut rows (outputs) and columns (inputs)."""
    assert isinstance(layer, nn.Linear)
    out = _kept(channels.output, alive)
    into = _kept(channels.inputs[0], alive)
    clone = shallow_copy(layer)
    assert isinstance(clone, nn.Linear)
    _resize(
        clone,
        out_features=layer.out_features if out is None else len(out),
        in_features=layer.in_features if into is None else len(into),
    )
    _set(clone, "weight", 0, out)
    _set(clone, "weight", 1, into)
    _set(clone, "bias", 0, out)
    return clone


def _cut_batchnorm(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Cut affine parameters and running statistics."""
    keep = _kept(channels.output, alive)
    if keep is None:
        return own_copy(layer)
    clone = shallow_copy(layer)
    _resize(clone, num_features=len(keep))
    for name in ("weight", "bias", "running_mean", "running_var"):
        _set(clone, name, 0, keep)
    steps = clone._buffers["num_batches_tracked"]
    clone._buffers["num_batches_tracked"] = None if steps is None else steps.clone()
    return clone


def _cut_prelu(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Cut the slopes where there is one per channel."""
    clone = own_copy(layer)
    assert isinstance(clone, nn.PReLU)
    keep = _kept(channels.output, alive)
    if keep is not None and clone.num_parameters > 1:
        _resize(clone, num_parameters=len(keep))
        _set(clone, "weight", 0, keep)
    return clone


def _cut_constant(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Cut a constant along the dimension that follows the channels."""
    clone = own_copy(layer)
    if channels.output is not None:
        _set(clone, "value", channels.output.dim, _kept(channels.output, alive))
    return clone


def _cut_reshape(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Shrink the target along the channel dimension."""
    assert isinstance(layer, Reshape)
    keep = _kept(channels.output, alive)
    if keep is None or channels.output is None:
        return own_copy(layer)
    shape = list(layer.shape)
    shape[channels.output.dim] = len(keep)
    return Reshape(shape)


def _cut_slice(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Move the borders to where the kept channels now are."""
    assert isinstance(layer, Slice)
    source = channels.inputs[0]
    if source is None or source.dim != layer.dim:
        return own_copy(layer)
    mask = alive[source.ids]
    if mask.all():
        return own_copy(layer)
    return Slice(layer.dim, int(mask[: layer.start].sum()), int(mask[: layer.stop].sum()), layer.step)


def _cut_pad(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Shrink the padding of the channel dimension by the padded channels that go."""
    assert isinstance(layer, Pad)
    if channels.output is None:
        return own_copy(layer)
    dim, mask = channels.output.dim, alive[channels.output.ids]
    before, after = layer.pads[dim]
    pads = list(layer.pads)
    pads[dim] = (int(mask[:before].sum()), int(mask[len(mask) - after :].sum()))
    return Pad(pads, layer.value)


_CUTS: dict[type[nn.Module], Callable[[nn.Module, LayerChannels, NDArray[np.bool_]], nn.Module]] = {
    nn.Conv2d: _cut_convolution,
    nn.ConvTranspose2d: _cut_convolution,
    nn.Linear: _cut_linear,
    nn.BatchNorm2d: _cut_batchnorm,
    nn.PReLU: _cut_prelu,
    Constant: _cut_constant,
    Reshape: _cut_reshape,
    Slice: _cut_slice,
    Pad: _cut_pad,
}


def _silence(layer: nn.Module, channels: LayerChannels, alive: NDArray[np.bool_]) -> nn.Module:
    """Return a full-size copy of `layer` whose removed channels neither produce nor are heard."""
    clone = own_copy(layer)
    if not isinstance(clone, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        return clone
    dead_out = ~_alive_of(channels.output, alive, clone.weight.shape[0])
    dead_in = ~_alive_of(channels.inputs[0], alive, clone.weight.shape[1])
    with torch.no_grad():
        if isinstance(clone, nn.ConvTranspose2d):
            _silence_transposed(clone, channels, alive)
            return clone
        clone.weight[dead_out] = 0.0
        if clone.bias is not None:
            clone.bias[dead_out] = 0.0
        if isinstance(clone, nn.Linear) or clone.groups == 1:
            clone.weight[:, dead_in] = 0.0
        elif not is_depthwise(clone):
            clone.weight[:, dead_in[: clone.weight.shape[1]]] = 0.0
    return clone


def _silence_transposed(layer: nn.ConvTranspose2d, channels: LayerChannels, alive: NDArray[np.bool_]) -> None:
    """Zero the removed channels of a transposed convolution of our own, weight ``(in, out / groups, k, k)``."""
    dead_in = ~_alive_of(channels.inputs[0], alive, layer.in_channels)
    dead_out = ~_alive_of(channels.output, alive, layer.out_channels)
    layer.weight[dead_in] = 0.0
    if not is_depthwise(layer):
        layer.weight[:, dead_out[: layer.weight.shape[1]]] = 0.0
    if layer.bias is not None:
        layer.bias[dead_out] = 0.0


def _alive_of(channels: Channels | None, alive: NDArray[np.bool_], size: int) -> Tensor:
    """Boolean mask over positions, all true where nothing can be removed."""
    return torch.ones(size, dtype=torch.bool) if channels is None else torch.from_numpy(alive[channels.ids])
