"""Where candidates are evaluated: in this process, or behind any ``concurrent.futures`` executor."""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any, Protocol

import torch

from autoprune.errors import Cancelled, PoolError, SearchError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.network.memory import keep_freed_memory
from autoprune.pruning.plan import Plan
from autoprune.search.evaluated import Evaluated

#: How often a pool that waits for another process asks whether it should stop.
POLL_S = 0.1

#: What who asked to stop is told.
STOPPED = "the evaluations were stopped; what was evaluated before is in the journal"

#: Asked while waiting; the evaluations are given up once it says True.
ShouldStop = Callable[[], bool]

#: Brings an evaluator to the workers and returns what stands for it in the calls that are submitted. It asks
#: ``should_stop`` while it waits, as :func:`wait_for` does, and raises LostError where there is nobody to bring it to.
Share = Callable[[PlanEvaluator, ShouldStop], object]


def never() -> bool:
    """Return False: nobody asks to stop."""
    return False


class LostError(PoolError):
    """An engine, or all that it had of workers, is gone; nothing says that the plans have a part in it."""


class LostEvaluationError(LostError):
    """An evaluation is gone with its worker, or with the engine; the cause is the engine's own error."""


class DeadlyPlanError(PoolError):
    """Evaluating a plan ended its worker process again and again.

    Attributes:
        others: Plans of the same call after that one, with what was found for them meanwhile.

    """

    def __init__(self, message: str, others: Sequence[tuple[Plan, Evaluated]]) -> None:
        """Say `message`, and hand over what was found."""
        super().__init__(message)
        self.others = tuple(others)


class EvaluationPool(Protocol):
    """Evaluates plans, here or elsewhere. Every implementation passes ``tests/conformance``.

    Contract:
        * **Order.** Scores come in the order of the plans, however many workers there are and whoever is done first.
        * **Identity.** Every evaluation runs with the same number of torch threads, so the scores are, bit for bit,
          those of every other pool on this kind of machine with as many threads per evaluation.
        * **Laziness.** Nothing starts before the first scores are asked for. Closing the iterator, or leaving it by an
          error, gives up what has not started; what runs may run to its end, unseen.
        * **Errors.** What the evaluator raises for a plan comes out as it is in that plan's place, and ends the
          iterator. A lost worker or engine raises PoolError, or Cancelled where `should_stop` says so by then: what
          ends a search often ends its workers too. A pool may try again before it says so, never with another result.
        * **Time.** With its scores comes what each evaluation took where it ran, without waiting for a worker.
        * **Ownership.** A pool belongs to one thread. It serves any number of evaluators, one after the other, and may
          be asked again after an error.
    """

    def evaluate(
        self,
        evaluator: PlanEvaluator,
        plans: Sequence[Plan],
        *,
        images: int | None = None,
        should_stop: ShouldStop = never,
    ) -> Generator[Evaluated]:
        """Yield the scores of `plans`, in order, on the first `images` search images (None: all).

        Args:
            evaluator: Scores the plans; it goes to each worker once, not with every plan.
            plans: What to evaluate.
            images: See :meth:`autoprune.evaluation.plan_evaluator.PlanEvaluator.evaluate`.
            should_stop: Asked several times a second while waiting for another process; not asked by a pool that
                evaluates in this one.

        Raises:
            PoolError: A worker or the engine was lost.
            Cancelled: `should_stop` said so.

        """
        ...


class SerialPool:
    """Evaluates in this process, each plan when its scores are asked for."""

    def __init__(self, *, threads: int = 1) -> None:
        """Evaluate with this many torch threads; the caller's own number is put back after every plan.

        Raises:
            SearchError: Less than one thread.

        """
        self._threads = at_least_one("thread", threads)

    def evaluate(
        self,
        evaluator: PlanEvaluator,
        plans: Sequence[Plan],
        *,
        images: int | None = None,
        should_stop: ShouldStop = never,
    ) -> Generator[Evaluated]:
        """Yield the scores of `plans`, in order; see :class:`EvaluationPool`."""
        for plan in plans:
            before = torch.get_num_threads()
            try:
                evaluated = _evaluate(evaluator, plan, images, self._threads)
            finally:
                torch.set_num_threads(before)
            yield evaluated


class ExecutorPool:
    """Evaluates behind an executor, which the caller owns and shuts down.

    All plans of a call are submitted at once: its workers are busy as long as there are plans.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        share: Share = lambda evaluator, _: evaluator,
        threads: int = 1,
        lost: tuple[type[Exception], ...] = (),
    ) -> None:
        """Use `executor`.

        Args:
            executor: Runs the evaluations. Threads share one evaluator, which must bear being called by several.
            share: Brings an evaluator to the workers; called once per evaluator. By default it is submitted as it is,
                with every plan: free for threads, dear for processes.
            threads: Torch threads of each evaluation.
            lost: Errors of this executor that mean a lost worker or engine, besides those of ``concurrent.futures``.

        Raises:
            SearchError: Less than one thread.

        """
        self._executor = executor
        self._share = share
        self._threads = at_least_one("thread", threads)
        self._lost: tuple[type[Exception], ...] = (PoolError, BrokenExecutor, CancelledError, *lost)
        self._shared: tuple[PlanEvaluator, object] | None = None

    def evaluate(
        self,
        evaluator: PlanEvaluator,
        plans: Sequence[Plan],
        *,
        images: int | None = None,
        should_stop: ShouldStop = never,
    ) -> Generator[Evaluated]:
        """Yield the scores of `plans`, in order; see :class:`EvaluationPool`."""
        futures: list[Future[Evaluated]] = []
        try:
            for plan in plans:
                stand_in = self._stand_in(evaluator, should_stop)
                futures.append(self._executor.submit(_evaluate, stand_in, plan, images, self._threads))
            for future in futures:
                wait_for(future, should_stop)
                yield future.result()
        except self._lost as error:
            self._shared = None  # it may be lost with the worker that held it
            if should_stop():
                raise Cancelled(STOPPED) from error
            if isinstance(error, PoolError):
                raise
            raise LostEvaluationError(
                f"an evaluation was lost: its worker process, or the engine behind it, ended ({type(error).__name__}); "
                "it may have run out of memory. What was evaluated before is in the journal: run the search again to "
                "go on, with fewer workers or fewer images"
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _stand_in(self, evaluator: PlanEvaluator, should_stop: ShouldStop) -> Any:  # noqa: ANN401 - see below
        """Return what arrives at a worker as `evaluator`; that is shared when it is new."""
        if self._shared is None or self._shared[0] is not evaluator:
            self._shared = (evaluator, self._share(evaluator, should_stop))
        return self._shared[1]


def at_least_one(what: str, number: int) -> int:
    """Return `number`.

    Raises:
        SearchError: It is below 1.

    """
    if number < 1:
        raise SearchError(f"evaluations need at least 1 {what}, found {number}")
    return number


def wait_for(future: Future[Any], should_stop: ShouldStop) -> None:
    """Return when `future` is done, with whatever outcome.

    Raises:
        Cancelled: `should_stop` said so before.

    """
    while not wait([future], POLL_S).done:
        if should_stop():
            raise Cancelled(STOPPED)


def _evaluate(evaluator: PlanEvaluator, plan: Plan, images: int | None, threads: int) -> Evaluated:
    """Score one plan; runs in a worker."""
    keep_freed_memory()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    started = time.monotonic()
    scores = evaluator.evaluate(plan, images=images)
    return Evaluated(scores, time.monotonic() - started)
