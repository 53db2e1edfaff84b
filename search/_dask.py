"""What pools behind Dask have in common: how an evaluator is sent out, and an executor. Imports Dask."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any, TypeVar

import distributed
from distributed.comm.core import CommClosedError

from autoprune.errors import ClusterError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.search.pool import LostError, ShouldStop, wait_for

_T = TypeVar("_T")

#: Errors that mean a lost worker or engine, besides those of ``concurrent.futures``.
LOST: tuple[type[Exception], ...] = (distributed.KilledWorker, CommClosedError)


def scatter(
    client: distributed.Client, workers: Collection[str] | None, evaluator: PlanEvaluator, should_stop: ShouldStop
) -> "distributed.Future[PlanEvaluator]":
    """Send an evaluator to the workers at these addresses, and to no others; to all where they are None.

    Raises:
        LostError: One of them is gone.
        ClusterError: One cannot read it.
        Cancelled: `should_stop` said so before.

    """
    lost = LostError("no worker process is left that could evaluate; run the search again to go on")
    if client.status != "running":
        raise lost
    chosen = None if workers is None else sorted(workers)
    sending = client.scatter(evaluator, workers=chosen, broadcast=True, hash=False, asynchronous=True)
    sent = asyncio.run_coroutine_threadsafe(sending, client.loop.asyncio_loop)
    try:
        wait_for(sent, should_stop)
    finally:
        sent.cancel()
    try:
        return sent.result()
    except (CancelledError, LookupError, OSError, RuntimeError, ValueError) as error:  # Dask has no common error
        raise lost from error
    except Exception as error:  # of a type of Dask's, or of none: what a worker said when it unpickled the evaluator
        raise ClusterError(
            f"a worker cannot read what it is to evaluate ({type(error).__name__}: {str(error)[:500]}); install there "
            "what this process imports, in the same versions, or name the workers that have it by the resources that "
            "they declare"
        ) from error


class ClientExecutor(Executor):
    """Submits to Dask. Its own adapter never answers where a result is lost with its worker before it was fetched."""

    def __init__(self, client: distributed.Client, resources: Mapping[str, float] | None = None) -> None:
        """Submit by `client` calls that take so much each of what workers declare."""
        self._client = client
        self._resources = dict(resources or {}) or None

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:  # noqa: ANN401
        """Run ``fn(*args, **kwargs)`` in a worker; what was scattered arrives there as itself."""
        remote = self._client.submit(fn, *args, pure=False, resources=self._resources, **kwargs)
        answer: Future[_T] = Future()
        answer.add_done_callback(lambda done: remote.cancel() if done.cancelled() else None)
        remote.add_done_callback(partial(_hand_over, answer))
        return answer


def _hand_over(answer: Future[_T], remote: "distributed.Future[_T]") -> None:
    """Give the outcome of `remote`, which is done, to `answer`, unless that was cancelled."""
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(remote.result())
    except BaseException as error:
        answer.set_exception(error)
