"""A fused unit: what a runtime runs as one kernel, and all that its time depends on besides the device.

onnxruntime fuses a convolution with the batch norm, the activation and the addition behind it, so these are one unit
and are timed as one. Nothing here imports torch, onnx or even numpy: the same code runs on a phone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from autoprune.errors import LatencyTableError

#: Kinds of units. A ``depthwise`` unit is a convolution with one filter per channel; ``elementwise`` and ``pool``
#: units are what is left between weighted layers: additions and activations that no convolution took along.
OPERATORS = ("conv", "depthwise", "linear", "pool", "elementwise")

#: Activations that can be part of a unit, by their ONNX names in lower case; ``relu6`` is a clip to 0 .. 6.
ACTIVATIONS = ("none", "relu", "relu6", "hardswish", "silu", "sigmoid", "leakyrelu", "prelu", "other")


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One fused unit with its channel counts.

    Attributes:
        op: One of :data:`OPERATORS`.
        kernel: Rows and columns of the kernel; ``(1, 1)`` for a linear layer, ``(0, 0)`` for a global pool.
        stride: Rows and columns.
        dilation: Rows and columns.
        padding: Top, left, bottom, right.
        groups: Convolution groups; of a depthwise unit always 1, because its groups are its channels.
        input_hw: Height and width of what enters; ``(1, 1)`` for a linear layer.
        c_in: Channels that enter.
        c_out: Channels that leave.
        activation: One of :data:`ACTIVATIONS`.
        add: Whether a second input is added before the activation.

    """

    op: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int
    input_hw: tuple[int, int]
    c_in: int
    c_out: int
    activation: str = "none"
    add: bool = False

    def with_channels(self, c_in: int, c_out: int) -> "Unit":
        """Return the same unit with other channel counts."""
        return replace(self, c_in=c_in, c_out=c_out)

    @property
    def shape(self) -> "Unit":
        """The unit without its channel counts (both 0): what all its widths share."""
        return replace(self, c_in=0, c_out=0)

    @property
    def output_hw(self) -> tuple[int, int]:
        """Height and width of what leaves."""
        if self.op == "linear" or self.kernel == (0, 0):
            return (1, 1)
        top, left, bottom, right = self.padding
        pads = (top + bottom, left + right)
        rows, columns = (
            (size + pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                self.input_hw, pads, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Unit":
        """Read what :meth:`to_dict` wrote.

        Raises:
            LatencyTableError: A field is missing, unknown, of the wrong type or out of range.

        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or set(data) != names:
            found = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise LatencyTableError(f"a unit has the fields {sorted(names)}, found {found}")
        for name, length in (("kernel", 2), ("stride", 2), ("dilation", 2), ("padding", 4), ("input_hw", 2)):
            value = data[name]
            if (
                not isinstance(value, list | tuple)
                or len(value) != length
                or not all(_is_count(each) for each in value)
            ):
                raise LatencyTableError(f"a unit's {name} is {length} whole numbers, found {value!r}")
        for name in ("groups", "c_in", "c_out"):
            if not _is_count(data[name]):
                raise LatencyTableError(f"a unit's {name} is a whole number, found {data[name]!r}")
        if data["op"] not in OPERATORS or data["activation"] not in ACTIVATIONS or not isinstance(data["add"], bool):
            raise LatencyTableError(
                f"a unit's op is one of {OPERATORS}, its activation one of {ACTIVATIONS}, its add true or false; "
                f"found {data['op']!r}, {data['activation']!r}, {data['add']!r}"
            )
        pairs = {name: tuple(data[name]) for name in ("kernel", "stride", "dilation", "padding", "input_hw")}
        return cls(**{**data, **pairs})

    def __str__(self) -> str:
        kernel, size = "x".join(map(str, self.kernel)), "x".join(map(str, self.input_hw))
        parts = [f"{self.op} {kernel} {self.c_in}->{self.c_out} @{size}"]
        if self.stride != (1, 1):
            parts.append("stride " + "x".join(map(str, self.stride)))
        if self.dilation != (1, 1):
            parts.append("dilation " + "x".join(map(str, self.dilation)))
        if self.groups > 1:
            parts.append(f"{self.groups} groups")
        if self.add:
            parts.append("+add")
        if self.activation != "none":
            parts.append(f"+{self.activation}")
        return " ".join(parts)


def _is_count(value: object) -> bool:
    """Tell whether `value` is a whole number, at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
