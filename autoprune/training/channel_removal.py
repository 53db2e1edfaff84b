"""Channels removed while a network is fine-tuned, a few at a time (Molchanov et al. 2019, 1906.10771).

Every few minibatches the channels of lowest score go, wherever they are, until the loss has risen by more than is
tolerated; the last network before that is the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.criteria.channels import score_units
from autoprune.criteria.members import Scores
from autoprune.errors import SearchError
from autoprune.evaluation.metrics import score as scores_of
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.device import default_device
from autoprune.network.logits import without_softmax
from autoprune.network.network import Network, network_of
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.recovery.finetune import FinetuneSettings, Progress, finetune
from autoprune.training.slimming import lowest_units

#: Makes of a network and its groups a score per unit, ``(n_units,)``; those of the lowest go.
ChannelScore = Callable[[Network, ChannelGroups], Scores]

#: Name of a group -> which of its channels, counted in the given network, stay, ascending.
Kept = Mapping[str, NDArray[np.int64]]


def l2(network: Network, groups: ChannelGroups) -> Scores:
    """Score units by the L2 norm of all their weights, ``(n_units,)``."""
    return score_units(network, groups, "l2")


@dataclass(frozen=True, slots=True)
class RemovalSettings:
    """How channels are removed.

    Attributes:
        training: Optimizer, rate and batch size between two removals, each with a schedule of its own; its epochs play
            no part. The seed of removal n is that of the settings plus n.
        channels: How many go at a time; plays no part where `removals` says it.
        minibatches: Steps of training after each removal.
        tolerance: Most that the loss on the judging images may rise above that of the given network, in nats; inf for
            any rise.
        most: Most channels that are removed in all; None for as many as the loss allows.
        removals: In how many removals all that can go do, as many channels in each as in the others or one more, and
            at least one; None for `channels` at a time.
        include_residual: Also remove channels of residual streams.

    """

    training: FinetuneSettings
    channels: int = 1
    minibatches: int = 10
    tolerance: float = 0.1
    most: int | None = None
    removals: int | None = None
    include_residual: bool = False

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A value out of range.

        """
        if self.channels < 1 or self.minibatches < 1 or not self.tolerance >= 0:
            raise SearchError(
                "removing channels needs channels >= 1, minibatches >= 1 and a tolerance of at least 0, "
                f"found {self.channels}, {self.minibatches} and {self.tolerance}"
            )
        if self.most is not None and self.most < 1:
            raise SearchError(f"expected to remove at least 1 channel, or None for no limit, found {self.most}")
        if self.removals is not None and self.removals < 1:
            raise SearchError(f"expected at least 1 removal, or None, found {self.removals}")

    def after(self, number: int, possible: int) -> int:
        """Return how many of `possible` channels are gone after removal `number`, counted from 1."""
        if self.removals is None:
            return min(number * self.channels, possible)
        return number * possible // min(self.removals, possible)


@dataclass(frozen=True, slots=True)
class Removal:
    """What one removal, and the training after it, left.

    Attributes:
        removed: Channels removed so far.
        loss: Of the network on the judging images, in nats.

    """

    removed: int
    loss: float


@dataclass(frozen=True, slots=True)
class ChannelsRemoved:
    """What is left.

    Attributes:
        plan: Which channels of the given network stay.
        network: The trained network, without the others.
        history: The loss before the first removal and after each one; the last entry may be beyond the tolerance.
        stopped: Whether it is, so that the channels of the last removal are still there.

    """

    plan: Plan
    network: Network
    history: tuple[Removal, ...]
    stopped: bool


def remove_while_training(
    network: Network,
    fit: tuple[Tensor, Tensor],
    judge: tuple[Tensor, Tensor],
    settings: RemovalSettings,
    *,
    score: ChannelScore = l2,
    teacher: Network | None = None,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> ChannelsRemoved:
    """Remove channels of a trained network in turn with training, until the loss has risen by the tolerance.

    On a CPU the result depends on the arguments and the number of threads alone. Every group keeps a channel.

    Args:
        network: Trained; not changed.
        fit: Images ``(n, C, H, W)``, normalised, and labels ``(n,)`` to train on; taken in order, over and over again.
        judge: Others, that say when to stop.
        settings: How much, and how often.
        score: Ranks the channels of the network as it is at the time; it may look at images of its own.
        teacher: As in :func:`autoprune.recovery.finetune.finetune`.
        progress: Called after each removal with channels removed and all that can be.
        precision: As in fine-tuning.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Images and labels that cannot be trained on.
        SearchError: No channel can be removed.
        NumericalError: The training diverged, or a score is not finite.

    """
    device = device or default_device()
    groups = find_groups(network)
    prunable = groups.prunable(include_residual=settings.include_residual)
    kept: Kept = {group.name: np.arange(len(group)) for group in prunable}
    possible = sum(len(indices) - 1 for indices in kept.values())
    if not possible:
        raise SearchError("this network has no channels that can be removed")
    possible = min(possible, settings.most or possible)

    def loss_of(current: Network) -> float:
        loss = scores_of(without_softmax(current.module), *judge, device=device).loss
        assert loss is not None, "there are labels"
        return loss

    best, history = (network, kept), [Removal(0, loss_of(network))]
    limit = history[0].loss + settings.tolerance
    while history[-1].removed < possible:
        current, kept = best
        count = settings.after(len(history), possible) - history[-1].removed
        current, kept = without_lowest(current, kept, score, count)
        chosen, training = _lesson(len(fit[0]), settings, len(history) - 1)
        module = finetune(
            current.module,
            *fit,
            training,
            chosen=chosen,
            teacher=None if teacher is None else teacher.module,
            precision=precision,
            device=device,
        ).module
        current = Network(module, current.input_shape, current.shapes)
        history.append(Removal(history[-1].removed + count, loss_of(current)))
        if progress is not None:
            progress(history[-1].removed, possible, f"loss {history[-1].loss:.3f} of at most {limit:.3f}")
        if history[-1].loss > limit:
            break
        best = current, kept
    plan = Plan({name: tuple(indices.tolist()) for name, indices in best[1].items()}, network.fingerprint())
    return ChannelsRemoved(plan, best[0], tuple(history), history[-1].loss > limit)


def without_lowest(current: Network, kept: Kept, score: ChannelScore, count: int) -> tuple[Network, Kept]:
    """Return the network without the `count` channels of lowest score, and what is then kept of the original.

    Args:
        current: What is left of the original; not changed.
        kept: Which channels of the original that is, by group; only channels of these groups may go.
        score: Ranks the channels of `current`.
        count: How many go; the best of every group stays.

    Raises:
        NumericalError: A score is not finite.

    """
    groups = find_groups(current)
    candidates = [group for group in groups.groups if group.name in kept and len(group) > 1]
    scores = score(current, groups)
    lowest = lowest_units(scores, [np.array(group.units) for group in candidates], count)
    stays = {
        group.name: tuple(index for index, unit in enumerate(group.units) if unit not in lowest) for group in candidates
    }
    module = prune(current, groups, Plan(stays, current.fingerprint()))
    left = {name: indices[list(stays[name])] if name in stays else indices for name, indices in kept.items()}
    return network_of(module, current.input_shape), left


def _lesson(n: int, settings: RemovalSettings, number: int) -> tuple[Tensor, FinetuneSettings]:
    """Return which of n images the minibatches after a removal hold, those that come next, and their settings."""
    images = settings.minibatches * settings.training.batch_size
    chosen = (torch.arange(images) + number * images) % n
    return chosen, replace(settings.training, epochs=1, seed=settings.training.seed + number)
