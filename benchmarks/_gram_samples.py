"""Gram statistics of one network by number of samples: what they cost, how wrong they are, what they are worth."""

import os
import statistics
from dataclasses import dataclass

import torch
from _candidates import passes, seconds
from torch import Tensor

from autoprune.costs.budget import Budget
from autoprune.datasets.splits import Splits
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.metrics import BATCH_SIZE, score
from autoprune.evaluation.recalibration import recalibrate
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.gram import GramStatistics, collect_grams
from autoprune.reconstruction.reconstructor import Reconstructor
from autoprune.search.allocation import allocate
from autoprune.search.uniform import uniform_policy


@dataclass(frozen=True, slots=True)
class Sampled:
    """Statistics of one number of samples.

    Attributes:
        cost: Time, relative to a bare forward pass of the unpruned network over the same images.
        error: Relative error of the Gram matrix, Frobenius norm, of the median layer.
        largest: The same of the worst layer.
        underdetermined: Layers with fewer samples than features.
        uniform: Top-1 of the uniform plan on the report split, reconstructed and recalibrated.
        exact: The same of the exact allocation.

    """

    cost: float
    error: float
    largest: float
    underdetermined: int
    uniform: float
    exact: float


class GramSamples:
    """Gram statistics of one network, beside a reference on other images."""

    def __init__(self, network: Network, splits: Splits, budget: Budget, *, reference_images: int, points: int) -> None:
        """Measure the reference on the last fit images."""
        self._network, self._splits, self._budget = network, splits, budget
        self._groups = find_groups(network)
        self._reference = self._collect(splits.fit.inputs[-reference_images:], points)

    def sampled(self, images: int, points: int) -> Sampled:
        """Measure the first fit images, and prune with what was measured."""
        inputs = self._splits.fit.inputs[:images]
        collected: list[GramStatistics] = []
        cost = seconds(lambda: collected.append(self._collect(inputs, points)))
        cost /= seconds(passes(self._network.module, torch.split(inputs, BATCH_SIZE)))
        grams = collected[0]
        errors = [
            float((grams.grams[name].matrix - reference.matrix).norm() / reference.matrix.norm())
            for name, reference in self._reference.grams.items()
        ]
        problem = pruning_problem(self._network, self._budget, criterion="obs", groups=self._groups, statistics=grams)
        assert problem.errors is not None
        uniform = self._top1(problem, uniform_policy(problem))
        exact = self._top1(problem, problem.policy(allocate(problem, problem.errors)))
        return Sampled(cost, statistics.median(errors), max(errors), len(grams.underdetermined), uniform, exact)

    def _collect(self, inputs: Tensor, points: int) -> GramStatistics:
        """Measure the layers behind all decision groups."""
        return collect_grams(self._network, self._groups.prunable(), inputs, points=points)

    def _top1(self, problem: PruningProblem, policy: PruningPolicy) -> float:
        """Return top-1 on the report split; on all cores, for this is not timed."""
        plan, report = problem.plan(policy), self._splits.report
        assert problem.statistics is not None
        threads = torch.get_num_threads()
        torch.set_num_threads(os.cpu_count() or 1)
        try:
            module = prune(problem.network, problem.all_groups, plan)
            Reconstructor(problem.network, problem.all_groups, problem.statistics).apply(module, plan)
            recalibrate(module, self._splits.fit.inputs[:RECALIBRATION_IMAGES])
            top1 = score(module, report.inputs, report.labels).top1
        finally:
            torch.set_num_threads(threads)
        assert top1 is not None
        return top1
