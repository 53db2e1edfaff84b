"""A pool that outlives its engine: what was lost with a worker or a scheduler is evaluated again."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Protocol

from autoprune.errors import Cancelled, PoolError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.pruning.plan import Plan
from autoprune.search.evaluated import Evaluated
from autoprune.search.journal import plan_key
from autoprune.search.pool import POLL_S, STOPPED, DeadlyPlanError, EvaluationPool, LostError, ShouldStop, never

#: Times in a row that evaluations may be lost, without a single answer between, until that is an error.
LOSSES = 5

#: Workers that one plan may take along, evaluated alone, until it is given up.
DEATHS = 4

#: How long to wait after a loss; twice as long after each further one in a row.
WAIT_S = 0.5

_log = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection to an engine. What is lost with the engine is found out by evaluating."""

    @property
    def pool(self) -> EvaluationPool:
        """What evaluates there; raises LostError where it lost a worker or the engine."""
        ...

    def ready(self, should_stop: ShouldStop) -> None:
        """Wait until there are workers, and check those that were not checked before.

        Raises:
            LostError: The engine is gone.
            PoolError: There are no workers, or they do not fit.
            Cancelled: `should_stop` said so.

        """
        ...

    def deaths(self, error: LostError) -> int:
        """Return how many workers an evaluation that ended in `error` took along, if it alone was running there."""
        ...

    def close(self) -> None:
        """End the connection; raises nothing."""
        ...


class RetryingPool:
    """Evaluates over a connection, and over a new one where that is lost; see :class:`EvaluationPool`.

    After a loss the plans that are still open are evaluated one at a time, then two, then four: so a plan that takes
    its worker along takes few others, and it is known which one it is. One that did so :data:`DEATHS` times ends the
    iterator with DeadlyPlanError in its place, after the others of the call were evaluated; these go with the error.
    """

    def __init__(
        self,
        connect: Callable[[ShouldStop], Connection],
        *,
        notice: Callable[[str], None] = _log.warning,
        wait_s: float = WAIT_S,
    ) -> None:
        """Evaluate over what `connect` makes.

        Args:
            connect: Makes a connection when the first plan is evaluated, and after each loss. Raises PoolError where
                there is none to be had, and Cancelled.
            notice: Told of every loss.
            wait_s: How long to wait after a loss; twice as long after each further one in a row.

        """
        self._connect = connect
        self._notice = notice
        self._wait_s = wait_s
        self._connection: Connection | None = None

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def evaluate(
        self,
        evaluator: PlanEvaluator,
        plans: Sequence[Plan],
        *,
        images: int | None = None,
        should_stop: ShouldStop = never,
    ) -> Generator[Evaluated]:
        """Yield the scores of `plans`, in order; see :class:`EvaluationPool`.

        Raises:
            DeadlyPlanError: A plan took its worker along again and again.
            PoolError: Evaluations were lost again and again, or nothing answers.
            Cancelled: `should_stop` said so.

        """
        deadly: list[Plan] = []
        others: list[tuple[Plan, Evaluated]] = []
        try:
            with closing(self._outcomes(evaluator, plans, images, should_stop)) as outcomes:
                for plan, evaluated in zip(plans, outcomes, strict=True):
                    if evaluated is None:
                        deadly.append(plan)
                    elif deadly:
                        others.append((plan, evaluated))
                    else:
                        yield evaluated
        except Exception as error:
            if not deadly or isinstance(error, Cancelled):
                raise
            raise _deadly(deadly, others) from error
        if deadly:
            raise _deadly(deadly, others)

    def _outcomes(
        self, evaluator: PlanEvaluator, plans: Sequence[Plan], images: int | None, should_stop: ShouldStop
    ) -> Generator[Evaluated | None]:
        """Yield what was found for each plan, in order; None where it takes its worker along."""
        done, together = 0, len(plans)
        losses = deaths = 0  # in a row
        while done < len(plans):
            asked = plans[done : done + together]
            try:
                connection = self._connected(should_stop)
                connection.ready(should_stop)
                with closing(
                    connection.pool.evaluate(evaluator, asked, images=images, should_stop=should_stop)
                ) as arriving:
                    for evaluated in arriving:
                        done, losses, deaths = done + 1, 0, 0
                        yield evaluated
                together *= 2
            except LostError as error:
                if should_stop():
                    raise Cancelled(STOPPED) from error
                if len(asked) == 1 and self._connection is not None:
                    deaths += self._connection.deaths(error)
                self.close()
                losses, together = losses + 1, 1
                if deaths >= DEATHS:
                    self._notice(f"{_name(asked[0])} ended its worker {deaths} times and is given up")
                    done, losses, deaths = done + 1, 0, 0
                    yield None
                elif losses > LOSSES:
                    raise PoolError(
                        f"evaluations were lost {losses} times in a row, and none came back between; the last time: "
                        f"{error}"
                    ) from error
                else:
                    self._notice(f"evaluations were lost ({_reason(error)}); trying again, {losses} of {LOSSES}")
                    _sleep(self._wait_s * 2 ** (losses - 1), should_stop)

    def _connected(self, should_stop: ShouldStop) -> Connection:
        """Return the connection, a new one if need be."""
        if self._connection is None:
            self._connection = self._connect(should_stop)
        return self._connection


def _sleep(seconds: float, should_stop: ShouldStop) -> None:
    """Wait.

    Raises:
        Cancelled: `should_stop` said so before.

    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if should_stop():
            raise Cancelled(STOPPED)
        time.sleep(min(left, POLL_S))


def _reason(error: LostError) -> str:
    """Return a few words about a loss."""
    return str(error) if error.__cause__ is None else type(error.__cause__).__name__


def _name(plan: Plan) -> str:
    """Name a plan as its journal does, and by what it keeps."""
    return f"plan {plan_key(plan)[:12]} (it keeps {', '.join(str(len(kept)) for kept in plan.kept.values())} channels)"


def _deadly(plans: Sequence[Plan], others: Sequence[tuple[Plan, Evaluated]]) -> DeadlyPlanError:
    """Return the error of plans that take their workers along."""
    return DeadlyPlanError(
        f"{'; '.join(map(_name, plans))}: evaluating this alone ended the worker process {DEATHS} times, so the search "
        "stops. Most often a worker has too little memory: give workers more, or score on fewer images. All other "
        "candidates that were evaluated are in the journal: run the search again to go on",
        others,
    )
