"""A weighted layer as a linear map: its input patches, sampled, as rows of a matrix.

Every convolution and linear layer computes ``y = W x + b`` at each of its output positions, where ``x`` is the patch of
the input that the kernel covers. A *feature* is one value of a patch, in the order of the flattened weight: channel
first, then kernel row and column. Convolutions with groups are one such map per group.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Layers that can be written as a linear map of patches.
LINEAR_MAPS = (nn.Conv2d, nn.Linear)


def n_maps(layer: nn.Module) -> int:
    """Return how many separate linear maps `layer` is: its convolution groups."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def n_features(layer: nn.Module) -> int:
    """Return the features of one map: inputs of one convolution group times kernel positions."""
    assert isinstance(layer, LINEAR_MAPS)
    return layer.weight[0].numel()


def has_bias(layer: nn.Module) -> bool:
    """Tell whether the layer has a bias of its own."""
    return layer.bias is not None


def features_of(layer: nn.Module, position: int) -> tuple[int, Tensor]:
    """Return the map that input channel `position` feeds, and its features there, ``(kernel positions,)`` int64."""
    if isinstance(layer, nn.Linear):
        return 0, torch.tensor([position])
    assert isinstance(layer, nn.Conv2d)
    per_map, kernel = layer.in_channels // layer.groups, layer.weight[0, 0].numel()
    index, channel = divmod(position, per_map)
    return index, torch.arange(channel * kernel, (channel + 1) * kernel)


def weight_matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weights ``(maps, outputs per map, features)`` and biases ``(maps, outputs per map)``, float64."""
    assert isinstance(layer, LINEAR_MAPS)
    maps = n_maps(layer)
    weight = layer.weight.detach().double().cpu().reshape(maps, -1, n_features(layer))
    bias = torch.zeros(weight.shape[:2], dtype=torch.float64)
    if layer.bias is not None:
        bias = layer.bias.detach().double().cpu().reshape(bias.shape)
    return weight, bias


def sample_patches(layer: nn.Module, inputs: Tensor, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return patches at `points` random output positions of each image (all where there are no more).

    Args:
        layer: An ``nn.Conv2d`` or ``nn.Linear``.
        inputs: What enters it, ``(n, C, H, W)`` or ``(n, ..., features)``.
        points: Positions per image, drawn with replacement.
        generator: The only source of randomness; on the CPU.

    Returns:
        Patches, ``(maps, n * points, features)``, and the positions they belong to, ``(n, points)``.

    """
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        positions = _positions(len(inputs), rows.shape[1], points, generator).to(inputs.device)
        return rows.gather(1, positions[:, :, None].expand(-1, -1, rows.shape[2])).flatten(0, 1)[None], positions
    assert isinstance(layer, nn.Conv2d)
    assert not isinstance(layer.padding, str)
    (kernel_y, kernel_x), (pad_y, pad_x) = layer.kernel_size, layer.padding
    padded = F.pad(inputs, (pad_x, pad_x, pad_y, pad_y)).permute(0, 2, 3, 1).contiguous()
    n, height, width, channels = padded.shape
    rows_out = (height - layer.dilation[0] * (kernel_y - 1) - 1) // layer.stride[0] + 1
    columns_out = (width - layer.dilation[1] * (kernel_x - 1) - 1) // layer.stride[1] + 1
    positions = _positions(n, rows_out * columns_out, points, generator)
    top, left = (positions // columns_out) * layer.stride[0], (positions % columns_out) * layer.stride[1]
    corner = (torch.arange(n)[:, None] * height + top) * width + left
    reach = torch.arange(kernel_y)[:, None] * (layer.dilation[0] * width) + torch.arange(kernel_x) * layer.dilation[1]
    pixels = (corner[..., None] + reach.flatten()).flatten().to(inputs.device)
    values = padded.reshape(-1, channels).index_select(0, pixels).reshape(-1, kernel_y * kernel_x, channels)
    maps = layer.groups  # (samples, kernel, channels) -> (maps, samples, channels per map * kernel)
    split = values.reshape(len(values), kernel_y * kernel_x, maps, channels // maps)
    return split.permute(2, 0, 3, 1).reshape(maps, len(values), -1), positions


def outputs_at(layer: nn.Module, outputs: Tensor, positions: Tensor) -> Tensor:
    """Return what `layer` put out at `positions` of :func:`sample_patches`, ``(maps, n * points, outputs per map)``."""
    channels_last = outputs if isinstance(layer, nn.Linear) else outputs.permute(0, 2, 3, 1)
    rows = channels_last.reshape(len(outputs), -1, channels_last.shape[-1])
    index = (torch.arange(len(rows), device=positions.device)[:, None] * rows.shape[1] + positions).flatten()
    values = rows.reshape(-1, rows.shape[2]).index_select(0, index.to(outputs.device))
    maps = n_maps(layer)
    return values.reshape(len(values), maps, -1).transpose(0, 1)


def _positions(n: int, available: int, points: int, generator: torch.Generator) -> Tensor:
    """Draw positions for each image, ``(n, points)``; all of them, in order, where there are no more than that."""
    if points >= available:
        return torch.arange(available).expand(n, available)
    return torch.randint(0, available, (n, points), generator=generator)
