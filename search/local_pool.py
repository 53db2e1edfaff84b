"""A pool of worker processes on this machine; the only module that knows Dask, imported when a pool is made."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from autoprune.errors import PoolError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.search.pool import ExecutorPool, at_least_one

if TYPE_CHECKING:
    import distributed

_T = TypeVar("_T")

#: How long workers may take to start, each of which imports torch, on a busy machine.
START_TIMEOUT_S = 120

#: The libraries of a worker start no threads of their own. Read when they are imported, so inherited from here.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

#: What a local cluster must not take from a user's own configuration of Dask.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # whoever lost a worker is told; nothing is silently tried again
    "distributed.scheduler.active-memory-manager.start": False,  # would take the evaluator from all but one worker
    "distributed.scheduler.http.routes": [],
    "distributed.scheduler.preload": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.daemon": True,
    "distributed.worker.preload": [],
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.preload": [],
    "distributed.nanny.environ": {},
    "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
    "distributed.comm.timeouts.connect": "30s",
}


@contextmanager
def local_pool(workers: int, *, threads: int = 1) -> Iterator[ExecutorPool]:
    """Lend a pool of worker processes on this machine, run by Dask distributed.

    Listens on the loopback address only, without a dashboard, and needs no network. Starting takes some seconds. When
    the block is left, by an error too, the workers are ended, in mid-evaluation if need be; they end by themselves when
    this process dies. As everywhere with new processes, a script must keep its work under
    ``if __name__ == "__main__":``.

    Args:
        workers: Number of processes.
        threads: Torch threads of each evaluation.

    Raises:
        SearchError: Less than one worker or thread.
        PoolError: The workers do not start.

    """
    at_least_one("worker", workers)
    at_least_one("thread", threads)
    import dask
    from distributed import Client, KilledWorker
    from distributed.comm.core import CommClosedError

    with (
        _environment_kept(),
        TemporaryDirectory(prefix="autoprune-workers-", ignore_cleanup_errors=True) as folder,
        dask.config.set({**_SETTINGS, "temporary-directory": folder}),
        _cluster(workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield ExecutorPool(
            _ClientExecutor(client),
            share=partial(_scatter, client),
            threads=threads,
            lost=(KilledWorker, CommClosedError),
        )


@contextmanager
def _cluster(workers: int) -> Iterator["distributed.LocalCluster"]:
    """Lend worker processes of one thread each, and the scheduler, which lives in a thread of this process.

    Raises:
        PoolError: They do not start.

    """
    from distributed import LocalCluster

    try:
        with _environment_kept():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                memory_limit=0,  # nothing is spilled to disk, and no worker ended for using more than its share
                death_timeout=START_TIMEOUT_S,
            )
    except (AssertionError, OSError, RuntimeError) as error:
        raise PoolError(
            f"{workers} worker processes could not be started ({error!r}); a script that searches with workers must do "
            'so under `if __name__ == "__main__":`; without workers a search needs no other process'
        ) from error
    try:
        yield cluster
    finally:
        cluster.sync(_end_workers, cluster)
        cluster.close()


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Put back what Dask sets in this process for its workers to inherit, whenever it starts one."""
    names = (*_ENVIRONMENT, "PYTHONHASHSEED", "DASK_PARENT", "__DASK_PARENT_PID")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


async def _end_workers(cluster: "distributed.LocalCluster") -> None:
    """Kill all workers: those in mid-evaluation would be waited for, those that just start too."""
    endings = []
    for nanny in cluster.workers.values():
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)
        endings.append(nanny.close())
    await asyncio.gather(*endings, return_exceptions=True)


def _scatter(client: "distributed.Client", evaluator: PlanEvaluator) -> "distributed.Future[PlanEvaluator]":
    """Send an evaluator to all workers."""
    try:
        return client.scatter(evaluator, broadcast=True, hash=False)
    except OSError as error:  # among them connections that closed or were not answered in time
        raise PoolError("no worker process is left that could evaluate; run the search again to go on") from error


class _ClientExecutor(Executor):
    """Submits to Dask. Its own adapter never answers where a result is lost with its worker before it was fetched."""

    def __init__(self, client: "distributed.Client") -> None:
        self._client = client

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:  # noqa: ANN401
        """Run ``fn(*args, **kwargs)`` in a worker; what was scattered arrives there as itself."""
        remote = self._client.submit(fn, *args, pure=False, **kwargs)
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
