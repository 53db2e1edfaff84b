"""Evaluations of one network's candidates, and their times beside bare forward passes of the same pruned network."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.datasets.splits import SearchSplits
from autoprune.evaluation.candidate_runner import MEMORY_BYTES
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import BATCH_SIZE, score_logits
from autoprune.evaluation.recalibration import fit_batches, recalibrate
from autoprune.network.device import batch_on, default_device
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.reconstructor import Reconstructor
from autoprune.search.random_search import RandomSearch


@dataclass(frozen=True, slots=True)
class Times:
    """One evaluation and its parts, in processor seconds.

    Attributes:
        evaluation: The whole evaluation.
        building: Cutting the network.
        solving: Reconstruction, nothing remembered.
        solving_again: Reconstruction, all layers remembered.
        recalibration: The whole recalibration.
        recalibrating: Bare forward passes of the pruned network over the same images.
        scoring: The same over the search images.
        metrics: What is computed from the outputs.

    """

    evaluation: float
    building: float
    solving: float
    solving_again: float
    recalibration: float
    recalibrating: float
    scoring: float
    metrics: float

    @property
    def passes(self) -> float:
        """All bare forward passes."""
        return self.recalibrating + self.scoring

    @property
    def overhead(self) -> float:
        """Share of the evaluation that is not spent in forward passes."""
        return 1 - self.passes / self.evaluation


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of one network, and who evaluates them."""

    problem: PruningProblem
    splits: SearchSplits
    evaluator: Evaluator

    @classmethod
    def of(cls, problem: PruningProblem, splits: SearchSplits, *, memory_bytes: int = MEMORY_BYTES) -> "Candidates":
        """Return the candidates of `problem`, which must have Gram statistics."""
        return cls(problem, splits, Evaluator(problem, splits, memory_bytes=memory_bytes))

    def remembering(self) -> "Candidates":
        """Return the same with an evaluator that remembers activations, as by default."""
        return Candidates.of(self.problem, self.splits)

    def random(self, n: int, seed: int = 0) -> list[Plan]:
        """Return plans as the random policy proposes them: at the budget, every group another width."""
        return [self.problem.plan(proposal.policy) for proposal in RandomSearch(self.problem, seed).ask(n)]

    def uniform(self, kept: float, seed: int) -> Plan:
        """Return a plan of one width with random channels: one costs what another costs, and none is like another."""
        counts = self.problem.kept(PruningPolicy.uniform(1 - kept, len(self.problem.groups)))
        draw = np.random.default_rng(seed)
        channels = {
            group.name: tuple(sorted(draw.choice(len(group), count, replace=False).tolist()))
            for group, count in zip(self.problem.groups, counts.tolist(), strict=True)
        }
        return Plan(channels, self.problem.model_sha256)

    def measure(self, plan: Plan, images: int | None = None) -> Times:
        """Time one evaluation on the first `images` search images, and its parts; `plan` must be new."""
        network, groups, fit = self.problem.network, self.problem.all_groups, self.splits.fit.inputs
        evaluation = seconds(lambda: self.evaluator.evaluate(plan, images=images))
        building = seconds(lambda: prune(network, groups, plan))
        module, reconstructor = prune(network, groups, plan), self._reconstructor()
        solving = seconds(lambda: reconstructor.apply(module, plan))
        solving_again = seconds(lambda: reconstructor.apply(module, plan))
        recalibration = seconds(lambda: recalibrate(module, fit))
        scoring, recalibrating = self._passes(module, images)
        labels = self.splits.search.labels
        assert labels is not None
        logits = torch.randn(len(labels[:images]), *network.output_shape)  # any will do
        metrics = seconds(lambda: score_logits(logits, labels[:images], reference_logits=logits))
        return Times(evaluation, building, solving, solving_again, recalibration, recalibrating, scoring, metrics)

    def against_passes(self, plan: Plan) -> tuple[float, float]:
        """Return the times of one evaluation and of its bare forward passes; the evaluator sees the plan once."""
        evaluation = seconds(lambda: self.evaluator.evaluate(plan))
        module = prune(self.problem.network, self.problem.all_groups, plan)
        self._reconstructor().apply(module, plan)
        recalibrate(module, self.splits.fit.inputs)
        return evaluation, sum(self._passes(module))

    def unpruned(self) -> float:
        """Return the time of bare forward passes of the unpruned network over the same images."""
        return sum(self._passes(self.problem.network.module))

    def _passes(self, module: nn.Module, images: int | None = None) -> tuple[float, float]:
        """Return the times of bare forward passes over search and recalibration images."""
        search = self.splits.search.inputs[:images]
        scored, recalibrated = torch.split(search, BATCH_SIZE), fit_batches(self.splits.fit.inputs)
        return seconds(passes(module, scored)), seconds(passes(module, recalibrated))

    def _reconstructor(self) -> Reconstructor:
        """Return one that has solved nothing yet."""
        assert self.problem.statistics is not None
        return Reconstructor(self.problem.network, self.problem.all_groups, self.problem.statistics)


def seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds that `work` takes in all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def passes(module: nn.Module, batches: Sequence[Tensor]) -> Callable[[], None]:
    """Return bare forward passes: batches ready as the network takes them, outputs dropped."""
    prepared = [batch_on(batch, default_device()) for batch in batches]

    def run() -> None:
        with torch.inference_mode():
            for batch in prepared:
                module(batch)

    return run
