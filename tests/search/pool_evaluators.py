"""Evaluators for tests of pools: importable by workers, and ill in several ways."""

import os
import random
import time
from pathlib import Path

import torch

from autoprune.errors import NumericalError
from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from tests.search.small_problems import FormulaEvaluator


class Uneven(FormulaEvaluator):
    """Takes a random time, so that workers overtake each other."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        time.sleep(random.random() / 50)  # noqa: S311 - no secret
        return super().evaluate(plan, images=images)


class Tracing(FormulaEvaluator):
    """Leaves a file per plan in `folder`, named by what is kept and by whom it was evaluated, and takes `seconds`."""

    def __init__(self, problem: PruningProblem, folder: Path, *, seconds: float = 0) -> None:
        super().__init__(problem)
        self._folder = folder
        self._pause = seconds

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        kept = "-".join(str(len(indices)) for indices in plan.kept.values())
        (self._folder / f"{kept} {os.getpid()}").touch()
        time.sleep(self._pause)
        return super().evaluate(plan, images=images)


class SlowToArrive(Tracing):
    """Takes as long to arrive at a worker as its evaluations take, and leaves a file ``arriving`` meanwhile.

    Where `seconds` is negative, it takes the worker along instead.
    """

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        (self._folder / f"arriving {os.getpid()}").touch()
        if self._pause < 0:
            os._exit(3)
        time.sleep(self._pause)


class Failing(FormulaEvaluator):
    """Raises NumericalError for plans that keep the first group whole."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        if len(plan.kept[self.problem.names[0]]) == len(self.problem.groups[0]):
            raise NumericalError("this plan's outputs are not finite")
        return super().evaluate(plan, images=images)


class Deadly(Failing):
    """Takes the whole process along instead."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        try:
            return super().evaluate(plan, images=images)
        except NumericalError:
            os._exit(3)


class DyingAtFirst(Tracing):
    """Takes the process along the first time that each plan is evaluated; the trace says which those are."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        kept = "-".join(str(len(indices)) for indices in plan.kept.values())
        known = any(path.name.startswith(f"{kept} ") for path in self._folder.iterdir())
        scores = super().evaluate(plan, images=images)
        if not known:
            os._exit(3)
        return scores


class DeadlyOrFailing(Deadly):
    """As :class:`Deadly`, and raises NumericalError for plans that keep little of the last group."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        if len(plan.kept[self.problem.names[-1]]) < len(self.problem.groups[-1]) // 4:
            raise NumericalError("this plan's outputs are not finite")
        return super().evaluate(plan, images=images)


class CountingThreads(FormulaEvaluator):
    """Scores by the number of torch threads, and by how often it was unpickled since it was made."""

    travels = 0

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.travels += 1

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        self.calls += 1
        return Scores(torch.get_num_threads(), None, self.calls, None, self.travels, 1)
