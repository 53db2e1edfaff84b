"""A pool that outlives its engine, over processes of this machine that die in earnest."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from autoprune.errors import Cancelled, NumericalError, PoolError
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.answers import Answers
from autoprune.search.journal import Journal, plan_key
from autoprune.search.pool import DeadlyPlanError, ExecutorPool, LostError, LostEvaluationError, ShouldStop
from autoprune.search.retrying_pool import DEATHS, LOSSES, RetryingPool
from tests.search.pool_evaluators import Deadly, DeadlyOrFailing, DyingAtFirst, Tracing
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem(measured=False)
WHOLE = PROBLEM.plan(PruningPolicy.uniform(0, 3))
PLANS = [PROBLEM.plan(PruningPolicy.uniform(ratio, 3)) for ratio in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)]

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.search.pool_evaluators"])  # torch is imported once


class Processes:
    """One worker process, and the connection to it."""

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(1, mp_context=PROCESSES)
        self.pool = ExecutorPool(self._executor)

    def ready(self, should_stop: ShouldStop) -> None:
        """There is always a worker."""

    def deaths(self, error: LostError) -> int:
        return int(isinstance(error, LostEvaluationError))

    def close(self) -> None:
        self._executor.shutdown()


class Engines:
    """Makes connections; counts them, and keeps what is said."""

    def __init__(self) -> None:
        self.made = 0
        self.said: list[str] = []

    def connect(self, should_stop: ShouldStop) -> Processes:
        self.made += 1
        return Processes()

    def pool(self, wait_s: float = 0.01) -> RetryingPool:
        return RetryingPool(self.connect, notice=self.said.append, wait_s=wait_s)


@pytest.fixture
def engines() -> Engines:
    return Engines()


def test_what_is_lost_is_evaluated_again(engines: Engines, tmp_path: Path) -> None:
    evaluator, pool = DyingAtFirst(PROBLEM, tmp_path), engines.pool()
    found = [each.scores for each in pool.evaluate(evaluator, PLANS)]
    pool.close()
    assert found == [FormulaEvaluator(PROBLEM).evaluate(plan) for plan in PLANS]
    assert engines.made == 1 + len(PLANS)  # every plan takes a worker along once
    assert engines.said == ["evaluations were lost (BrokenProcessPool); trying again, 1 of 5"] * len(PLANS)


def test_a_deadly_plan_is_named_and_takes_no_other_along(engines: Engines) -> None:
    evaluator, pool = Deadly(PROBLEM), engines.pool()
    asked = [*PLANS[:2], WHOLE, *PLANS[2:]]
    with Journal("sqlite://") as journal:
        answers = Answers(evaluator, journal, pool).of(asked)
        assert [next(answers).scores for _ in range(2)] == [evaluator.evaluate(plan) for plan in PLANS[:2]]
        with pytest.raises(DeadlyPlanError, match=rf"plan {plan_key(WHOLE)[:12]} \(it keeps 16, 24, 32 chan.* 4"):
            next(answers)
        assert all(journal.get(evaluator.settings_key, plan) is not None for plan in PLANS)
        assert journal.get(evaluator.settings_key, WHOLE) is None
    pool.close()
    assert DEATHS <= engines.made - 1 <= DEATHS + 2


def test_errors_after_a_deadly_plan_do_not_hide_it(engines: Engines) -> None:
    pool = engines.pool()
    with pytest.raises(DeadlyPlanError) as caught:
        list(pool.evaluate(DeadlyOrFailing(PROBLEM), [WHOLE, PLANS[0], PLANS[-1], PLANS[1]]))
    pool.close()
    assert [plan for plan, _ in caught.value.others] == [PLANS[0]]
    assert isinstance(caught.value.__cause__, NumericalError)


def test_an_engine_that_never_answers_ends_it(tmp_path: Path) -> None:
    class Gone(Processes):
        def ready(self, should_stop: ShouldStop) -> None:
            raise LostError("nobody is there")

    said: list[str] = []
    pool = RetryingPool(lambda _: Gone(), notice=said.append, wait_s=0.001)
    with pytest.raises(PoolError, match=r"were lost 6 times in a row.*nobody is there"):
        list(pool.evaluate(FormulaEvaluator(PROBLEM), PLANS))
    assert len(said) == LOSSES
    stopping = RetryingPool(lambda _: Gone(), notice=said.append, wait_s=1000)
    with pytest.raises(Cancelled):
        list(stopping.evaluate(FormulaEvaluator(PROBLEM), PLANS, should_stop=lambda: len(said) > LOSSES))


def test_nothing_is_connected_before_the_first_scores_are_asked_for(engines: Engines, tmp_path: Path) -> None:
    pool = engines.pool()
    arriving = pool.evaluate(Tracing(PROBLEM, tmp_path), PLANS)
    assert engines.made == 0
    next(arriving)
    arriving.close()
    assert list(pool.evaluate(FormulaEvaluator(PROBLEM), [])) == []
    assert len(list(pool.evaluate(FormulaEvaluator(PROBLEM), PLANS))) == len(PLANS)
    pool.close()
    pool.close()
    assert engines.made == 1
    assert engines.said == []
    assert os.getpid() not in {int(path.name.split()[1]) for path in tmp_path.iterdir()}
