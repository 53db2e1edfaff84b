"""What pools behind Dask have in common: how an evaluator is sent out, and an executor. Imports Dask."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any, TypeVar

import distributed
from distributed.comm.core import CommClosedError

from autoprune.errors import ClusterError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.search._parcel import Parcel, opened, opened_at, unreadable
from autoprune.search.pool import LostError, ShouldStop, wait_for

_T = TypeVar("_T")

#: Errors that mean a lost worker or engine, besides those of ``concurrent.futures``.
LOST: tuple[type[Exception], ...] = (distributed.KilledWorker, CommClosedError)

# It tells, with a traceback, of connections that a pool has closed on purpose, even after the pool is gone.
logging.getLogger("distributed.batched").setLevel(logging.WARNING)

_NOBODY = "no worker process is left that could evaluate; run the search again to go on"


def scatter(
    client: distributed.Client, workers: Collection[str] | None, evaluator: PlanEvaluator, should_stop: ShouldStop
) -> "distributed.Future[Parcel]":
    """Send an evaluator to the workers at these addresses, and to no others; to all where they are None.

    Raises:
        LostError: One of them is gone.
        ClusterError: One cannot read it.
        Cancelled: `should_stop` said so before.

    """
    chosen = None if workers is None else sorted(workers)

    def everywhere(function: Callable[..., object], *arguments: object) -> None:
        """Call it at all of these workers, beside what they evaluate."""
        running = client.run(function, *arguments, workers=chosen, on_error="return", asynchronous=True)
        for address, answer in _outcome(client, running, should_stop).items():
            if isinstance(answer, OSError):
                raise LostError(_NOBODY) from answer
            if isinstance(answer, ClusterError):
                raise answer
            if isinstance(answer, Exception):
                raise unreadable(address, answer) from answer

    everywhere(opened, None)  # whoever lacks parcels says so: Dask itself would send one without end
    parcel = Parcel.packed(evaluator)
    sending = client.scatter(parcel, workers=chosen, broadcast=True, hash=False, asynchronous=True)
    sent: distributed.Future[Parcel] = _outcome(client, sending, should_stop)
    everywhere(opened_at, sent.key)
    return sent


def _outcome(client: distributed.Client, coroutine: Coroutine[Any, Any, Any], should_stop: ShouldStop) -> Any:  # noqa: ANN401
    """Return what a coroutine of `client` returns.

    Raises:
        LostError: The connection is lost, or a worker that was spoken to.
        Cancelled: `should_stop` said so before.

    """
    lost = LostError(_NOBODY)
    if client.status != "running":
        coroutine.close()
        raise lost
    running = asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
    try:
        wait_for(running, should_stop)
    finally:
        running.cancel()
    try:
        return running.result()
    except (CancelledError, LookupError, OSError, RuntimeError, ValueError) as error:  # Dask has no common error
        raise lost from error


class ClientExecutor(Executor):
    """Submits to Dask. Its own adapter never answers where a result is lost with its worker before it was fetched."""

    def __init__(self, client: distributed.Client, resources: Mapping[str, float] | None = None) -> None:
        """Submit by `client` calls that take so much each of what workers declare."""
        self._client = client
        self._resources = dict(resources or {}) or None

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:  # noqa: ANN401
        """Run ``fn(*args, **kwargs)`` in a worker; what was scattered arrives there as itself."""
        remote = self._client.submit(_with_opened, fn, *args, pure=False, resources=self._resources, **kwargs)
        answer: Future[_T] = Future()
        answer.add_done_callback(lambda done: remote.cancel() if done.cancelled() else None)
        remote.add_done_callback(partial(_hand_over, answer))
        return answer


def _with_opened(fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:  # noqa: ANN401
    """Call `fn` with what came in parcels; runs in a worker."""
    return fn(*map(opened, args), **kwargs)


def _hand_over(answer: Future[_T], remote: "distributed.Future[_T]") -> None:
    """Give the outcome of `remote`, which is done, to `answer`, unless that was cancelled."""
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(remote.result())
    except BaseException as error:
        answer.set_exception(error)
