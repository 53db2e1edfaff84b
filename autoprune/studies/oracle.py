"""The leave-one-out oracle: what the loss gains when one channel goes and nothing else changes.

As in Molchanov et al. 2017 (1611.06440, section 2.1, "oracle pruning") neither batch norm is recalibrated nor anything
trained or reconstructed. All channels of a group that goes together count as one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import score
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.logits import without_softmax
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.studies.notebook import Notebook

#: Channels measured, all channels, what was measured last.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Oracle:
    """What single channels are worth.

    Attributes:
        loss: Of the whole network, in nats.
        channels: By group, which of its channels were left out, ascending.
        changes: By group, what the loss gained without each of these, in nats; negative where it fell.

    """

    loss: float
    channels: Mapping[str, tuple[int, ...]]
    changes: Mapping[str, NDArray[np.float64]]


def loss_of(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the mean cross entropy of a network's logits, in nats; images ``(n, C, H, W)``, labels ``(n,)``."""
    loss = score(without_softmax(module), images, labels).loss
    assert loss is not None, "there are labels"
    return loss


def leave_one_out(
    network: Network,
    groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    images: Tensor,
    labels: Tensor,
    *,
    channels: int | None = None,
    seed: int = 0,
    notebook: Notebook | None = None,
    progress: Progress | None = None,
) -> Oracle:
    """Measure the loss without each channel of the chosen groups; takes one forward pass over all images per channel.

    Args:
        network: Not changed.
        groups: All its groups.
        chosen: The groups whose channels are left out, each of at least two.
        images: ``(n, C, H, W)``, normalised.
        labels: ``(n,)`` int64.
        channels: Most channels of a group that are left out, drawn by the seed; None for all.
        seed: Of that draw.
        notebook: Keeps what was measured.
        progress: Called after every channel; what it raises ends the study.

    Raises:
        SearchError: Fewer than two channels per group asked for: nothing could be ranked.
        NumericalError: An output is not finite.

    """
    if channels is not None and channels < 2:
        raise SearchError(f"expected to leave out at least 2 channels per group, to rank them; found {channels}")
    notebook = Notebook() if notebook is None else notebook  # an empty one is false
    rng = np.random.default_rng(seed)
    drawn = {group.name: _drawn(len(group), channels, rng) for group in chosen}
    total, done = sum(map(len, drawn.values())), 0
    (base,) = notebook.get(["whole"], lambda: [loss_of(network.module, images, labels)])
    changes = {}
    for group in chosen:
        found = []
        for channel in drawn[group.name]:

            def measure(channel: int = channel, group: ChannelGroup = group) -> list[float]:
                return [loss_of(prune(network, groups, without(group, channel)), images, labels)]

            found.append(notebook.get([group.name, channel], measure)[0] - base)
            done += 1
            if progress is not None:
                progress(done, total, f"channels left out, {group.name}")
        changes[group.name] = np.array(found)
    return Oracle(base, drawn, changes)


def without(group: ChannelGroup, channel: int) -> Plan:
    """Return the plan that removes one channel of a group."""
    return Plan({group.name: tuple(index for index in range(len(group)) if index != channel)}, "")


def _drawn(size: int, most: int | None, rng: np.random.Generator) -> tuple[int, ...]:
    """Return which channels of a group of this size are left out."""
    if most is None or size <= most:
        return tuple(range(size))
    return tuple(sorted(rng.choice(size, most, replace=False).tolist()))
