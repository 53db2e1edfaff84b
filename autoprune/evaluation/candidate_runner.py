"""Runs one candidate after another on the same images, each from where it parts from the one before."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import outputs
from autoprune.evaluation.recalibration import fit_batches, norms_of, pass_batches
from autoprune.evaluation.segments import segments
from autoprune.network.device import batch_on, default_device
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan

#: Bytes of activations remembered of the last candidate.
MEMORY_BYTES = 512 * 2**20


@dataclass(slots=True)
class _Stage:
    """One segment of the last candidate: recalibrated, and what it made of which images.

    Attributes:
        key: Which units were kept of those that this segment and all before it depend on.
        forward: The segment with its batch norm statistics, batch to batch.
        fit: Outputs on the batches of the fit split, each normalised by its own statistics; empty without norms behind.
        search: Number of images and output by number of batch of the search split.

    """

    key: bytes
    forward: Callable[[Tensor], Tensor]
    fit: tuple[Tensor, ...]
    search: dict[int, tuple[int, Tensor]] = field(default_factory=dict)


class CandidateRunner:
    """Recalibrates candidates of one problem and runs them on images, without repeating what the last one shares.

    A candidate's layers depend only on which of their own inputs and outputs are kept. So the activations at a cut are
    those of the last candidate if both keep the same channels up to there, and the candidate starts at the last such
    cut. All candidates go through the same segments, batches and operations wherever they start: outputs are equal to
    the last bit, and equal to those of :func:`autoprune.evaluation.recalibration.recalibrate` and
    :func:`autoprune.evaluation.metrics.predict`.

    Memory: activations of the last candidate, at most `memory_bytes`, and its outputs and weights; on the device that
    computes. None of it is pickled along.
    """

    def __init__(
        self, problem: PruningProblem, fit: Tensor, search: Tensor, *, memory_bytes: int, precision: str
    ) -> None:
        """Choose where to cut.

        Args:
            problem: The problem whose candidates are run.
            fit: Images to recalibrate on, ``(n, C, H, W)``, normalised.
            search: Images to score on, ``(n, C, H, W)``, normalised.
            memory_bytes: Bound on remembered activations; 0 for none.
            precision: ``"fp32"`` or ``"bf16"``, of the outputs; recalibration is always float32.

        Raises:
            SearchError: A negative bound.

        """
        if memory_bytes < 0:
            raise SearchError(f"expected at least 0 bytes for remembered activations, found {memory_bytes}")
        self._groups = problem.all_groups
        self._fit, self._search, self._precision = fit, search, precision
        self._segments = segments(problem, len(fit) + len(search), memory_bytes)
        norms = norms_of(problem.network.module)
        normed = [any(step.layer in norms for step in segment.steps) for segment in self._segments]
        self._last_normed = max((depth for depth, has_norms in enumerate(normed) if has_norms), default=-1)
        self._stages: list[_Stage] = []

    def __getstate__(self) -> Mapping[str, Any]:
        """Leave out what is remembered."""
        return {**vars(self), "_stages": []}

    @property
    def remembered_bytes(self) -> int:
        """Bytes of activations remembered now, besides outputs."""
        return sum(
            activation.untyped_storage().nbytes()
            for stage in self._stages[:-1]
            for activation in (*stage.fit, *(output for _, output in stage.search.values()))
        )

    def logits(self, module: fx.GraphModule, plan: Plan, images: int | None = None) -> Tensor:
        """Recalibrate a candidate, which must be made for `plan`, and return its outputs; it belongs to the runner now.

        Args:
            module: Pruned by `plan` and maybe reconstructed: the same module for the same plan, always.
            plan: What it keeps.
            images: Run on the first so many search images; None for all.

        Returns:
            Outputs, float32 ``(images, classes)`` on the CPU.

        Raises:
            DatasetError: Fewer than two images to recalibrate on.
            NumericalError: A batch norm statistic or an output is not finite.

        """
        device = default_device()
        self._recalibrate(module.to(device), plan, device)
        return outputs(self._forward, self._search[:images], precision=self._precision, device=device)

    def _recalibrate(self, module: fx.GraphModule, plan: Plan, device: torch.device) -> None:
        """Make the stages those of `module`, keeping as many of the first ones as are the same."""
        alive = plan.kept_units(self._groups)
        keys = [alive[segment.units].tobytes() for segment in self._segments]
        shared = sum(stage.key == key for stage, key in zip(self._stages, keys, strict=False))  # units nest: the first
        del self._stages[shared:]
        norms = norms_of(module)
        for depth in range(shared, len(self._segments)):
            segment = self._segments[depth]
            forward = segment.of(module)
            fit: tuple[Tensor, ...] = ()
            if depth <= self._last_normed:
                with torch.no_grad():
                    own = {step.layer: norms[step.layer] for step in segment.steps if step.layer in norms}
                    fit = pass_batches(forward, own, self._fit_inputs(depth, device))
            self._stages.append(_Stage(keys[depth], forward, fit if depth < self._last_normed else ()))

    def _fit_inputs(self, depth: int, device: torch.device) -> Iterable[Tensor]:
        """Return what enters a segment, batch by batch of the fit split."""
        if depth > 0:
            return self._stages[depth - 1].fit
        return (batch_on(batch, device) for batch in fit_batches(self._fit))

    def _forward(self, number: int, batch: Tensor) -> Tensor:
        """Return the outputs for a batch of the search split, starting at the last stage that has seen it."""
        known = -1
        for depth, stage in enumerate(self._stages):
            if number in stage.search and stage.search[number][0] == len(batch):
                known = depth
        activation = batch if known < 0 else self._stages[known].search[number][1]
        for stage in self._stages[known + 1 :]:
            activation = stage.forward(activation)
            stage.search[number] = len(batch), activation
        return activation
