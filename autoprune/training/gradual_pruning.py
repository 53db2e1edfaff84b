"""Single weights pruned while a network is trained, along the gradual schedule (Zhu & Gupta 2017, 1710.01878)."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.errors import SearchError
from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.recovery.finetune import FinetuneSettings, Penalty, Progress, finetune
from autoprune.training.gradual_schedule import GradualSchedule
from autoprune.training.layer_collapse import check_collapse
from autoprune.training.masks import MaskKeeper, Masks, Scope, full_masks, smaller_masks
from autoprune.training.weight_scores import WeightScore, magnitude


@dataclass(frozen=True, slots=True)
class GraduallyPruned:
    """What is left.

    Attributes:
        masks: Which weights stayed.
        network: The trained network; the weights that are gone are zero.
        losses: Mean loss of every epoch.

    """

    masks: Masks
    network: Network
    losses: tuple[float, ...]


def prune_gradually(
    network: Network,
    inputs: Tensor,
    labels: Tensor | None,
    training: FinetuneSettings,
    schedule: GradualSchedule,
    *,
    scope: Scope = "layer",
    score: WeightScore = magnitude,
    teacher: Network | None = None,
    penalty: Penalty | None = None,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> GraduallyPruned:
    """Train `network` once, and remove weights on the way.

    Args:
        network: Trained or not; not changed. Its weights that are zero count as gone.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised.
        labels: Their classes, ``(n,)`` int64, or None to learn from the teacher alone.
        training: How to train.
        schedule: What share is removed at which step; ends before the last one, so that training can make up for it.
        scope: Whether weights compete with those of their layer, as in the paper, or with all others.
        score: Ranks weights at each pruning; those of the lowest scores go.
        teacher: As in :func:`autoprune.recovery.finetune.finetune`.
        penalty: Likewise.
        progress: Called after each step; what it raises ends the training.
        precision: As in fine-tuning.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Images and labels that cannot be trained on.
        SearchError: The schedule ends after the training.
        PlanError: A layer would collapse, or scores that do not fit the network.
        NumericalError: The training diverged.

    """
    steps = training.epochs * training.steps_per_epoch(len(inputs))
    if schedule.end >= steps:
        raise SearchError(
            f"the gradual schedule ends at step {schedule.end}, the training at step {steps}; expected the schedule "
            "to end first: begin earlier, prune more often, or train for more epochs"
        )
    pruner = _Pruner(network, schedule, scope, score)
    if schedule.prunes_at(0):
        pruner.prune(network, 0)
    trained, history = finetune(
        masked(network, pruner.keeper.masks).module,
        inputs,
        labels,
        training,
        teacher=None if teacher is None else teacher.module,
        penalty=penalty,
        after_step=pruner,
        progress=progress,
        precision=precision,
        device=device,
    )
    losses = tuple(epoch.loss for epoch in history)
    return GraduallyPruned(pruner.keeper.masks, Network(trained, network.input_shape, network.shapes), losses)


class _Pruner:
    """Removes weights where the schedule says so, and keeps those at zero that are gone."""

    def __init__(self, network: Network, schedule: GradualSchedule, scope: Scope, score: WeightScore) -> None:
        self._network, self._schedule, self._scope, self._score = network, schedule, scope, score
        self.keeper = MaskKeeper(full_masks(network))

    def __call__(self, module: nn.Module, done: int) -> None:
        """Look at a network in training after a step."""
        self.keeper(module, done)
        if self._schedule.prunes_at(done):
            assert isinstance(module, fx.GraphModule)
            self.prune(Network(module, self._network.input_shape, self._network.shapes), done)
            self.keeper(module, done)

    def prune(self, network: Network, done: int) -> None:
        """Take on the masks for a step."""
        share = 1 - self._schedule.sparsity(done)
        masks = smaller_masks(self.keeper.masks, self._score(network), share, self._scope)
        check_collapse(self._network, masks)
        self.keeper.masks = masks
