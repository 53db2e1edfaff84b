"""A small network with searches to run on it, scored by a formula or for real."""

import hashlib
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.datasets.splits import SearchSplits, Split
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.reconstruction.gram import collect_grams

WIDTHS = (16, 24, 32)


def small_network(widths: Sequence[int] = WIDTHS) -> Network:
    """Convolutions with batch norm, strides and one depthwise layer, and a linear head of five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        b = NetworkBuilder("image", (3, 8, 8))
        x, c = b.input, 3
        for i, width in enumerate(widths):
            x = b.add(nn.Conv2d(c, width, 3, stride=1 + i % 2, padding=1, bias=False), x, name=f"conv{i}")
            x = b.add(nn.ReLU(), b.add(nn.BatchNorm2d(width), x, name=f"norm{i}"), name=f"relu{i}")
            c = width
        x = b.add(nn.Conv2d(c, c, 3, padding=1, groups=c), x, name="depthwise")
        x = b.add(nn.AdaptiveAvgPool2d(1), x, name="pool")
        return b.finish(b.add(nn.Linear(c, 5), b.add(Reshape((-1, c)), x, name="flat"), name="head"))


def small_problem(
    budget: str = "macs=50%", *, round_to: int = 1, widths: Sequence[int] = WIDTHS, measured: bool = True
) -> PruningProblem:
    """A problem of :func:`small_network`, with Gram statistics of random images if `measured`."""
    network = small_network(widths)
    groups = find_groups(network)
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    statistics = collect_grams(network, groups.prunable(), images) if measured else None
    return pruning_problem(network, Budget.parse(budget), round_to=round_to, groups=groups, statistics=statistics)


class FormulaEvaluator:
    """Scores plans by a formula in the kept indices: cheap, exact, different for every plan, and counts its calls.

    Attributes:
        weights: How much of the objective hangs on each group, ``(n_groups,)``.
        search_images: What it pretends to score on; scores on fewer are off by up to `noise`.
        calls: Plans evaluated so far.
        images: Images they were scored on, together.

    """

    search_images = 100
    follows_path = False

    def __init__(
        self,
        problem: PruningProblem,
        weights: Sequence[float] | None = None,
        *,
        seconds: float = 0,
        noise: float = 0.0,
    ) -> None:
        self.problem = problem
        self.weights = np.ones(len(problem.groups)) if weights is None else np.asarray(weights, dtype=float)
        self.settings_key = hashlib.sha256(f"formula {self.weights.tolist()} {noise}".encode()).hexdigest()
        self.calls = 0
        self.images = 0
        self._seconds = seconds
        self._noise = noise

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        scored = images or self.search_images
        self.calls += 1
        self.images += scored
        time.sleep(self._seconds)
        shares = [len(plan.kept[g.name]) / len(g) for g in self.problem.groups]
        top1 = float(self.weights @ np.sqrt(shares) / self.weights.sum())
        ripple = math.sin(sum((i + 1) * k for kept in plan.kept.values() for i, k in enumerate(kept)))
        top1 += self._noise * ripple * (scored < self.search_images)
        return Scores(top1, None, 2 - top1 + ripple / 1000, None, None, scored)


def real_evaluator(problem: PruningProblem) -> Evaluator:
    """Score random images against random labels: meaningless figures, real networks."""
    return Evaluator(problem, real_splits())


def real_splits() -> SearchSplits:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(1)

    def split(name: str, n: int) -> Split:
        images = torch.randn(n, 3, 8, 8, generator=generator)
        return Split(
            images, torch.randint(5, (n,), generator=generator), name, hashlib.sha256(name.encode()).hexdigest()
        )

    return SearchSplits(split("fit", 32), split("search", 64))
