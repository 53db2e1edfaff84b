"""The vocabulary of a canonical network: every node of its graph calls exactly one of these layers.

``nn.Conv2d``, ``nn.ConvTranspose2d``, ``nn.Linear``, ``nn.BatchNorm2d`` and the usual activations and poolings are
PyTorch's own. The rest, which PyTorch writes as functions, are the small modules below: their sizes live in attributes,
not in generated code, so a pruned network is the same graph with other layers.

Sizes of the batch are never stored: a dimension that follows the batch is -1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Constant(nn.Module):
    """A tensor that is part of the network: ``forward()`` returns `value`, any shape."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value


class Add(nn.Module):
    """``a + b`` with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Sub(nn.Module):
    """``a - b`` with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Mul(nn.Module):
    """``a * b`` with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Div(nn.Module):
    """``a / b`` with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


class MatMul(nn.Module):
    """``a @ b`` of two activations (attention); a product with a constant matrix is an ``nn.Linear``."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class Concat(nn.Module):
    """Concatenation of any number of tensors along `dim` (never the batch)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Reshape(nn.Module):
    """Every kind of view, flatten, squeeze and unsqueeze: `shape` is the whole target, with one -1 (the batch)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.shape)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class Permute(nn.Module):
    """Transposition: output dimension ``i`` is input dimension ``dims[i]``."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"dims={self.dims}"


class Slice(nn.Module):
    """``x[..., start:stop:step, ...]`` along `dim`; ``0 <= start < stop <= size``, ``step >= 1``."""

    def __init__(self, dim: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.dim, self.start, self.stop, self.step = dim, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        index = (slice(None),) * self.dim + (slice(self.start, self.stop, self.step),)
        return x[index]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, start={self.start}, stop={self.stop}, step={self.step}"


class Pad(nn.Module):
    """Constant padding: `pads` holds one ``(before, after)`` pair per dimension, all >= 0; (0, 0) for the batch."""

    def __init__(self, pads: Sequence[tuple[int, int]], value: float = 0.0) -> None:
        super().__init__()
        self.pads = tuple((int(before), int(after)) for before, after in pads)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        flat = [amount for pair in reversed(self.pads) for amount in pair]
        return F.pad(x, flat, value=self.value)

    def extra_repr(self) -> str:
        return f"pads={self.pads}, value={self.value}"


class Mean(nn.Module):
    """Mean over `dims` (non-negative, never the batch)."""

    def __init__(self, dims: Sequence[int], keepdim: bool) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims, keepdim=self.keepdim)

    def extra_repr(self) -> str:
        return f"dims={self.dims}, keepdim={self.keepdim}"


#: Layers with weights whose channels can be removed.
PRODUCERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

#: One value in, one value out, position by position, no parameters: channels pass through untouched.
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Softplus, nn.Mish, nn.Identity,
)  # fmt: skip

#: Work on each channel's own plane: channels pass through untouched, height and width may change.
SPATIAL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample)

#: ``a op b`` with broadcasting.
ELEMENTWISE = (Add, Sub, Mul, Div)

#: Move values without changing them.
MOVEMENT = (Reshape, Permute, Slice, Pad, Concat)

#: Mix channels in a way that cannot be narrowed: what enters and leaves them stays whole.
BARRIERS = (MatMul, nn.Softmax, nn.LayerNorm, nn.GroupNorm)

#: Everything a canonical network may be made of.
LAYERS = (
    *PRODUCERS, nn.BatchNorm2d, nn.PReLU, *ACTIVATIONS, *SPATIAL, *ELEMENTWISE, *MOVEMENT, Mean, Constant, *BARRIERS,
)  # fmt: skip
