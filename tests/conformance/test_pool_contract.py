"""What every pool must do; see the contract of :class:`autoprune.search.pool.EvaluationPool`."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from autoprune.errors import Cancelled, NumericalError
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.cluster import Cluster
from autoprune.search.cluster_pool import cluster_pool
from autoprune.search.local_pool import local_pool
from autoprune.search.pool import EvaluationPool, ExecutorPool, SerialPool
from tests.search.dask_cluster import dask_cluster
from tests.search.pool_evaluators import CountingThreads, Failing, Tracing, Uneven
from tests.search.small_problems import FormulaEvaluator, real_evaluator, small_problem

PROBLEM = small_problem()


@contextmanager
def serial() -> Iterator[EvaluationPool]:
    yield SerialPool()


@contextmanager
def one_thread() -> Iterator[EvaluationPool]:
    with ThreadPoolExecutor(1) as executor:
        yield ExecutorPool(executor)


@contextmanager
def processes() -> Iterator[EvaluationPool]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield ExecutorPool(executor)


@contextmanager
def cluster() -> Iterator[EvaluationPool]:
    with (
        TemporaryDirectory() as folder,
        dask_cluster(Path(folder), 2) as running,
        cluster_pool(Cluster(running.url)) as pool,
    ):
        yield pool


POOLS: dict[str, Callable[[], AbstractContextManager[EvaluationPool]]] = {
    "serial": serial,
    "a thread": one_thread,
    "two processes": processes,
    "local workers": lambda: local_pool(2),
    "a cluster": cluster,
}


@pytest.fixture(scope="module", params=POOLS.values(), ids=POOLS)
def pool(request: pytest.FixtureRequest) -> Iterator[EvaluationPool]:
    """One pool for all tests of a kind: a pool may be asked again after an error."""
    with request.param() as made:
        yield made


def plans(count: int, seed: int = 0) -> list[Plan]:
    ratios = np.random.default_rng(seed).uniform(0.1, 0.9, (count, 3))
    return [PROBLEM.plan(PruningPolicy.of(row)) for row in ratios.tolist()]


def scored(
    pool: EvaluationPool, evaluator: PlanEvaluator, asked: list[Plan], *, images: int | None = None
) -> list[Scores]:
    return [evaluated.scores for evaluated in pool.evaluate(evaluator, asked, images=images)]


def test_scores_come_in_the_order_asked(pool: EvaluationPool) -> None:
    asked = plans(25)
    expected = [FormulaEvaluator(PROBLEM).evaluate(plan) for plan in asked]
    assert scored(pool, Uneven(PROBLEM), asked) == expected
    assert list(pool.evaluate(Uneven(PROBLEM), [])) == []


def test_scores_are_those_of_this_process_bit_for_bit(pool: EvaluationPool) -> None:
    evaluator = real_evaluator(PROBLEM)
    for images in (None, 20):
        expected = [evaluator.evaluate(plan, images=images) for plan in plans(4)]
        assert scored(pool, evaluator, plans(4), images=images) == expected


def test_the_images_reach_the_evaluator(pool: EvaluationPool) -> None:
    assert [scores.images for scores in scored(pool, FormulaEvaluator(PROBLEM), plans(3), images=7)] == [7, 7, 7]


def test_what_an_evaluation_took_is_told(pool: EvaluationPool, tmp_path: Path) -> None:
    asked = plans(6)
    taken = [each.seconds for each in pool.evaluate(Tracing(PROBLEM, tmp_path, seconds=0.05), asked)]
    assert len([seconds for seconds in taken if seconds is not None and seconds >= 0.05]) == len(asked)


def test_evaluators_take_turns(pool: EvaluationPool) -> None:
    evaluators = [FormulaEvaluator(PROBLEM, weights) for weights in ([1, 1, 1], [9, 1, 1])]
    for evaluator in [*evaluators, *evaluators]:
        assert scored(pool, evaluator, plans(2)) == [evaluator.evaluate(plan) for plan in plans(2)]


def test_errors_of_a_plan_come_in_its_place(pool: EvaluationPool) -> None:
    whole = PROBLEM.plan(PruningPolicy.uniform(0, 3))
    first, *rest = plans(5)
    arriving = pool.evaluate(Failing(PROBLEM), [first, whole, *rest])
    assert next(arriving).scores == FormulaEvaluator(PROBLEM).evaluate(first)
    with pytest.raises(NumericalError, match="this plan's outputs are not finite"):
        next(arriving)
    assert list(arriving) == []
    assert len(list(pool.evaluate(Failing(PROBLEM), rest))) == 4


def test_evaluations_run_with_one_thread(pool: EvaluationPool) -> None:
    torch.set_num_threads(2)
    try:
        assert {scores.top1 for scores in scored(pool, CountingThreads(PROBLEM), plans(4))} == {1}
        if isinstance(pool, SerialPool):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_was_not_started_is_given_up(pool: EvaluationPool, tmp_path: Path) -> None:
    arriving = pool.evaluate(Tracing(PROBLEM, tmp_path, seconds=0.05), plans(30))
    assert not list(tmp_path.iterdir())
    next(arriving)
    arriving.close()
    assert list(pool.evaluate(FormulaEvaluator(PROBLEM), plans(1)))  # whatever still ran is done now
    started = len(list(tmp_path.iterdir()))
    assert started < 15
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) <= started + 1


def test_waiting_is_stopped_within_a_second(pool: EvaluationPool, tmp_path: Path) -> None:
    if isinstance(pool, SerialPool):
        pytest.skip("does not wait for another process")
    arriving = pool.evaluate(
        Tracing(PROBLEM, tmp_path, seconds=2), plans(2), should_stop=lambda: any(tmp_path.iterdir())
    )
    started = time.monotonic()
    with pytest.raises(Cancelled):
        list(arriving)
    assert time.monotonic() - started < 2
