"""Channels of an activation, and what the propagation of their ids writes down."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.network.network import Shape

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Channels:
    """Ids of one activation: ``ids[i]`` belongs to position ``i`` of dimension `dim`; equal at all other positions."""

    dim: int
    ids: Ids  # (shape[dim],)


@dataclass(frozen=True, slots=True)
class LayerChannels:
    """What a layer sees: the channels of each input and of its output; None where nothing can ever be removed.

    For a :class:`Constant`, which has no input, `output` says along which of its own dimensions it is cut.
    """

    inputs: tuple[Channels | None, ...]
    output: Channels | None


@dataclass(slots=True)
class Tape:
    """What the propagation writes down: fresh ids, unions, and why ids are frozen or residual."""

    count: int = 0
    unions: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    added: list[Ids] = field(default_factory=list)

    def fresh(self, n: int) -> Ids:
        """Return `n` new ids."""
        self.count += n
        return np.arange(self.count - n, self.count)

    def unite(self, a: Ids, b: Ids) -> None:
        """Note that `a` and `b`, of equal shape, can only be removed together, element by element."""
        self.unions.append((a, b))

    def freeze(self, channels: Channels | None, reason: str) -> None:
        """Note that none of these channels can be removed, and why."""
        if channels is not None:
            self.frozen.append((channels.ids, reason))


@dataclass(frozen=True, slots=True)
class Call:
    """One layer applied: name, channels and shapes of its inputs (batch 1), shape of its output."""

    name: str
    inputs: tuple[Channels | None, ...]
    shapes: tuple[Shape, ...]
    output_shape: Shape
    has_constant: bool
