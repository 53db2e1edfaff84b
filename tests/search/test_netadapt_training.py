"""NetAdapt with short-term training: the same path with any workers, and after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal, plan_key
from autoprune.search.local_pool import local_pool
from autoprune.search.netadapt import NetAdapt
from tests.search.killed_netadapt import EVALUATIONS, run, tuned_evaluator
from tests.search.small_problems import FormulaEvaluator, small_problem

ROOT = Path(__file__).parents[2]


def test_the_path_is_the_same_with_workers_and_resumed_without_checkpoints(tmp_path: Path) -> None:
    whole = run(tmp_path / "serial")
    assert 4 <= len(whole.front) <= len(whole.trials) <= EVALUATIONS
    with local_pool(2) as pool:
        parallel = run(tmp_path / "parallel", pool=pool, batch=5)
    assert (parallel.trials, parallel.front) == (whole.trials, whole.front)
    shutil.rmtree(tmp_path / "serial" / "checkpoints")
    again = run(tmp_path / "serial")
    assert (again.trials, again.front, again.evaluated) == (whole.trials, whole.front, 0)
    evaluator = tuned_evaluator(tmp_path / "anew")
    parents = [evaluator.problem.plan(policy) for policy in whole.front[-2].proposal.parents]
    last = PathPlan.of(evaluator.problem.plan(whole.front[-2].policy), parents)
    assert evaluator.evaluate(last) == whole.front[-2].scores


def test_a_killed_search_walks_the_same_path(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.search.killed_netadapt", str(folder)]
    with (
        Journal.open(folder / "journal.sqlite") as journal,
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}) as search,
    ):
        deadline = time.monotonic() + 120
        while len(journal) < 6:
            assert search.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline, "the search does not record anything"
            time.sleep(0.01)
        search.send_signal(signal.SIGKILL)
        assert search.wait() == -signal.SIGKILL
        survived = len(journal)
    resumed, whole = run(folder), run(tmp_path / "whole")
    assert (resumed.trials, resumed.front, resumed.best) == (whole.trials, whole.front, whole.best)
    assert resumed.cached >= survived >= 6
    assert resumed.evaluated > 0


class Following(FormulaEvaluator):
    """Remembers the plans it was given."""

    follows_path = True

    def __init__(self, problem: PruningProblem, *, follows_path: bool) -> None:
        super().__init__(problem)
        self.follows_path = follows_path
        self.plans: list[Plan] = []

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        self.plans.append(plan)
        return super().evaluate(plan, images=images)


def test_evaluators_that_follow_paths_are_given_them_and_others_are_not() -> None:
    problem = small_problem()
    with Journal("sqlite://") as journal:
        for follows_path in (True, False):
            evaluator = Following(problem, follows_path=follows_path)
            found = run_search(problem, evaluator, NetAdapt(problem, 20), evaluations=20, journal=journal)
            by_path = [plan for plan in evaluator.plans if isinstance(plan, PathPlan)]
            assert len(by_path) == follows_path * sum(bool(trial.proposal.parents) for trial in found.trials)
            for plan in by_path:
                kept = [[len(each.kept[name]) for name in problem.names] for each in plan.path]
                assert kept == [list(trial.kept) for trial in found.front[1 : len(kept) + 1]]


def test_the_journal_tells_paths_apart() -> None:
    end, before = Plan({"a": (0, 1), "b": (2,)}, ""), Plan({"a": (0, 1), "b": (1, 2)}, "")
    plans = [end, PathPlan.of(end, [before]), PathPlan.of(end, [before, before]), PathPlan.of(before, [end])]
    assert len({plan_key(plan) for plan in plans}) == 4
    assert plan_key(PathPlan.of(end, [before])) == plan_key(PathPlan(dict(reversed(end.kept.items())), "", (before,)))
