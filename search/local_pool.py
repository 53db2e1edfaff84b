"""A pool of worker processes on this machine, run by Dask, which is imported when a pool is made."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autoprune.errors import PoolError
from autoprune.search.pool import POLL_S, ExecutorPool, at_least_one

if TYPE_CHECKING:
    import distributed

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
    this process dies. SIGINT and SIGTERM, which often go to a whole process group, do nothing to them: what these mean
    is for this process to say. As everywhere with new processes, a script must keep its work under
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
    from distributed import Client

    from autoprune.search._dask import LOST, ClientExecutor, scatter

    with (
        _environment_kept(),
        TemporaryDirectory(prefix="autoprune-workers-", ignore_cleanup_errors=True) as folder,
        dask.config.set({**_SETTINGS, "temporary-directory": folder}),
        _cluster(workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield ExecutorPool(
            ClientExecutor(client),
            share=partial(scatter, client, None),
            threads=threads,
            lost=LOST,
        )


@contextmanager
def _cluster(workers: int) -> Iterator["distributed.LocalCluster"]:
    """Lend worker processes of one thread each, and the scheduler, which lives in a thread of this process.

    Raises:
        PoolError: They do not start.

    """
    from distributed import LocalCluster, Nanny

    nannies: list[Nanny] = []

    def nanny(*args: Any, **kwargs: Any) -> Nanny:  # noqa: ANN401
        """Make what starts a worker; called by Dask in the cluster's own thread."""
        _block_signals()
        nannies.append(Nanny(*args, **kwargs))
        return nannies[-1]

    with _starting(workers):
        cluster = LocalCluster(
            n_workers=0,  # they start when their ending is seen to
            worker_class=nanny,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            memory_limit=0,  # nothing is spilled to disk, and no worker ended for using more than its share
            death_timeout=START_TIMEOUT_S,
        )
    try:
        with _starting(workers):
            cluster.sync(_start_workers, cluster, workers)
        yield cluster
    finally:
        cluster.sync(_end_workers, nannies)
        cluster.close()


@contextmanager
def _starting(workers: int) -> Iterator[None]:
    """Start workers, or what they need, in the block.

    Raises:
        PoolError: That failed.

    """
    try:
        with _environment_kept():
            yield
    except (AssertionError, OSError, RuntimeError) as error:
        raise PoolError(
            f"{workers} worker processes could not be started ({error!r}); a script that searches with workers must do "
            'so under `if __name__ == "__main__":`; without workers a search needs no other process'
        ) from error


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


def _block_signals() -> None:
    """Let what this thread starts, processes too, live with SIGINT and SIGTERM blocked, from its first instruction on.

    The threads that were there before take the signals of this process as ever.
    """
    resource_tracker.ensure_running()  # its first start would unblock them here again
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


async def _start_workers(cluster: "distributed.LocalCluster", workers: int) -> None:
    """Start all workers; a start that is cancelled goes on until they are ended."""
    cluster.scale(workers)
    ready = asyncio.ensure_future(_ready(cluster))
    ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # or Python complains that nobody looked
    await asyncio.shield(ready)


async def _ready(cluster: "distributed.LocalCluster") -> None:
    """Wait for all workers to be there."""
    await cluster


async def _end_workers(nannies: "Sequence[distributed.Nanny]") -> None:
    """Kill all workers: those in mid-evaluation would be waited for, those that just start too."""
    while True:
        for nanny in nannies:
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        if not any(nanny.status.name in ("init", "starting") for nanny in nannies):
            break
        await asyncio.sleep(POLL_S)  # one may be about to start its worker
    await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)
