"""How the tracer converts each type of ``torch.nn`` layer; exact types only, since a subclass may compute otherwise."""

import copy
from collections.abc import Callable

from torch import nn

from autoprune.network._trace_call import Call, Value
from autoprune.network._trace_functions import upsample
from autoprune.network._trace_movement import channel_shuffle, pad, pixel_shuffle
from autoprune.network.layers import ACTIVATIONS, Pad

Converter = Callable[[Call, nn.Module, Value], Value]

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _own(layer: nn.Module) -> nn.Module:
    """Copy a layer without its hooks and without in-place computation."""
    clone = copy.deepcopy(layer)
    for name in _HOOKS:
        getattr(clone, name).clear()
    if hasattr(clone, "inplace"):
        vars(clone)["inplace"] = False
    return clone


def _keep(call: Call, layer: nn.Module, x: Value) -> Value:
    """Take the layer as it is."""
    return call.emit(_own(layer), x)


def _drop(call: Call, layer: nn.Module, x: Value) -> Value:
    """Leave out a layer that does nothing at inference."""
    return x


def _view(call: Call, layer: nn.Module, x: Value) -> Value:
    """Any layer that only changes the shape."""
    return call.reshape(x)


def _convolution(call: Call, layer: nn.Module, x: Value) -> Value:
    """Normalise the padding: numbers, the same on both sides; otherwise a layer of its own."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    if not isinstance(layer.weight, nn.Parameter):
        raise call.unsupported("its weight is computed from others (weight or spectral norm); remove that first")
    if layer.padding_mode != "zeros":
        raise call.unsupported(f"padding_mode {layer.padding_mode!r}; only 'zeros' is supported")
    if x.rank != 4:
        raise call.unsupported(f"the input has {x.rank} dimensions, expected 4 (batch, channels, height, width)")
    clone = _own(layer)
    assert isinstance(clone, nn.Conv2d | nn.ConvTranspose2d)
    if not isinstance(clone.padding, str):
        return call.emit(clone, x)
    left, right, top, bottom = clone._reversed_padding_repeated_twice
    clone.padding = (0, 0)
    if left == right and top == bottom:
        clone.padding = (top, left)
    else:
        x = call.emit(Pad(((0, 0), (0, 0), (top, bottom), (left, right))), x, like=x)
    clone._reversed_padding_repeated_twice = [clone.padding[1]] * 2 + [clone.padding[0]] * 2
    return call.emit(clone, x)


def _linear(call: Call, layer: nn.Module, x: Value) -> Value:
    """Refuse weights that are computed from others."""
    if not isinstance(layer.weight, nn.Parameter):
        raise call.unsupported("its weight is computed from others (weight or spectral norm); remove that first")
    return call.emit(_own(layer), x)


def _batchnorm(call: Call, layer: nn.Module, x: Value) -> Value:
    """Write out missing scales; on vectors, work on planes of one pixel."""
    assert isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)
    if layer.running_mean is None or layer.running_var is None:
        raise call.unsupported("it has no running statistics (track_running_stats=False)")
    clone = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    clone.load_state_dict({**clone.state_dict(), **layer.state_dict()})
    clone.eval()
    if x.rank == 4:
        return call.emit(clone, x)
    if x.rank != 2 or x.batch_dim != 0:
        raise call.unsupported(f"the input has {x.rank} dimensions, expected 4, or 2")
    plane = Value((*x.shape, 1, 1), 0)
    return call.reshape(call.emit(clone, call.reshape(x, plane), like=plane))


def _instance_norm(call: Call, layer: nn.Module, x: Value) -> Value:
    """Group norm with one group per channel."""
    assert isinstance(layer, nn.InstanceNorm2d)
    if layer.track_running_stats:
        raise call.unsupported("instance norm with running statistics")
    clone = nn.GroupNorm(layer.num_features, layer.num_features, layer.eps)
    clone.load_state_dict({**clone.state_dict(), **layer.state_dict()})
    return call.emit(clone.eval(), x)


def _layer_norm(call: Call, layer: nn.Module, x: Value) -> Value:
    """Write out missing scales."""
    assert isinstance(layer, nn.LayerNorm)
    clone = nn.LayerNorm(layer.normalized_shape, layer.eps)
    clone.load_state_dict({**clone.state_dict(), **layer.state_dict()})
    return call.emit(clone.eval(), x)


def _group_norm(call: Call, layer: nn.Module, x: Value) -> Value:
    """Write out missing scales."""
    assert isinstance(layer, nn.GroupNorm)
    clone = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps)
    clone.load_state_dict({**clone.state_dict(), **layer.state_dict()})
    return call.emit(clone.eval(), x)


def _softmax(call: Call, layer: nn.Module, x: Value) -> Value:
    """Count the dimension from the front."""
    dim = 1 if isinstance(layer, nn.Softmax2d) else layer.dim
    if not isinstance(dim, int):
        raise call.unsupported("softmax needs a dimension (dim=...)")
    return call.emit(nn.Softmax(call.not_batch(x, (dim,), "softmax")[0]), x)


def _pooling(call: Call, layer: nn.Module, x: Value) -> Value:
    """Refuse poolings that return indices."""
    if getattr(layer, "return_indices", False):
        raise call.unsupported("return_indices=True")
    if x.rank != 4:
        raise call.unsupported(f"the input has {x.rank} dimensions, expected 4 (batch, channels, height, width)")
    return call.emit(_own(layer), x)


def _upsample(call: Call, layer: nn.Module, x: Value) -> Value:
    """Same rules as ``F.interpolate``."""
    assert isinstance(layer, nn.Upsample)
    return upsample(call, x, layer.size, layer.scale_factor, layer.mode, layer.align_corners)


def _constant_pad(call: Call, layer: nn.Module, x: Value) -> Value:
    """Same rules as ``F.pad``."""
    assert isinstance(layer, nn.ConstantPad2d | nn.ZeroPad2d)
    return pad(call, x, layer.padding, "constant", layer.value)


def _pixel_shuffle(call: Call, layer: nn.Module, x: Value) -> Value:
    """Same rules as ``F.pixel_shuffle``."""
    assert isinstance(layer, nn.PixelShuffle)
    return pixel_shuffle(call, x, layer.upscale_factor)


def _channel_shuffle(call: Call, layer: nn.Module, x: Value) -> Value:
    """Same rules as ``torch.channel_shuffle``."""
    assert isinstance(layer, nn.ChannelShuffle)
    return channel_shuffle(call, x, layer.groups)


#: Converter of every supported layer type.
MODULES: dict[type[nn.Module], Converter] = {
    **dict.fromkeys((*ACTIVATIONS, nn.PReLU), _keep),
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batchnorm,
    nn.BatchNorm2d: _batchnorm,
    nn.InstanceNorm2d: _instance_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Softmax: _softmax,
    nn.Softmax2d: _softmax,
    nn.MaxPool2d: _pooling,
    nn.AvgPool2d: _pooling,
    nn.AdaptiveAvgPool2d: _pooling,
    nn.AdaptiveMaxPool2d: _pooling,
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.UpsamplingBilinear2d: _upsample,
    nn.ConstantPad2d: _constant_pad,
    nn.ZeroPad2d: _constant_pad,
    nn.PixelShuffle: _pixel_shuffle,
    nn.ChannelShuffle: _channel_shuffle,
    nn.Flatten: _view,
    nn.Unflatten: _view,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout), _drop),
}
