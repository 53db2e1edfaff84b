"""A pool on the workers of a Dask cluster that somebody else runs; imports Dask when it connects."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from autoprune.errors import Cancelled, ClusterError
from autoprune.search.cluster import Cluster
from autoprune.search.pool import (
    POLL_S,
    STOPPED,
    ExecutorPool,
    LostError,
    LostEvaluationError,
    ShouldStop,
    at_least_one,
)
from autoprune.search.retrying_pool import WAIT_S, RetryingPool

if TYPE_CHECKING:
    import distributed

#: How long a scheduler may take to answer, and after that workers to be there: they may just be restarted.
PATIENCE_S = 60.0

#: Longest single attempt to connect; whether to stop is asked between attempts.
_ATTEMPT_S = 3.0

_log = logging.getLogger(__name__)

#: What workers must have in common with this process, or scores differ or are not found: by what it is called, the
#: function that tells, and its arguments. All are known to Python or torch: a worker need not have autoprune to answer.
_FACTS: tuple[tuple[str, Callable[..., object], tuple[object, ...]], ...] = (
    ("Python", platform.python_version_tuple, ()),
    ("autoprune", version, ("autoprune",)),
    ("torch", version, ("torch",)),
    ("a graphics processor", torch.cuda.is_available, ()),
)


@contextmanager
def cluster_pool(
    cluster: Cluster,
    *,
    threads: int = 1,
    notice: Callable[[str], None] = _log.warning,
    patience_s: float = PATIENCE_S,
    wait_s: float = WAIT_S,
) -> Iterator[RetryingPool]:
    """Lend a pool on the workers of a cluster.

    It connects when the first plan is evaluated. Workers that are lost, and a scheduler that comes back, cost time
    only. Workers must have one thread each, the versions of this process, and a graphics processor where it has one:
    the scores are then, bit for bit, those of this process on the same kind of machine. When the block is left, what
    runs there may run to its end, unseen.

    Args:
        cluster: Its address, and what goes with it.
        threads: Torch threads of each evaluation.
        notice: Told of losses, and of waiting.
        patience_s: How long to wait for the scheduler, and for workers.
        wait_s: How long to wait after a loss; twice as long after each further one in a row.

    Raises:
        SearchError: Less than one thread.

    """
    at_least_one("thread", threads)
    logger = logging.getLogger("distributed.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it says of lost connections is said here, in words of a search
    pool = RetryingPool(partial(_connected, cluster, threads, notice, patience_s), notice=notice, wait_s=wait_s)
    try:
        yield pool
    finally:
        pool.close()
        logger.setLevel(level)


class _Connection:
    """A client of a Dask cluster; see :class:`autoprune.search.retrying_pool.Connection`."""

    def __init__(
        self,
        cluster: Cluster,
        client: "distributed.Client",
        threads: int,
        notice: Callable[[str], None],
        patience_s: float,
    ) -> None:
        from autoprune.search._dask import LOST, ClientExecutor, scatter

        self.pool = ExecutorPool(
            ClientExecutor(client, dict(cluster.resources)),
            share=lambda evaluator, should_stop: scatter(client, self._checked, evaluator, should_stop),
            threads=threads,
            lost=LOST,
        )
        self._cluster = cluster
        self._client = client
        self._notice = notice
        self._patience_s = patience_s
        self._checked: frozenset[str] = frozenset()

    def ready(self, should_stop: ShouldStop) -> None:
        """Wait for a worker, and check those that are new."""
        deadline = time.monotonic() + self._patience_s
        waits = False
        while not (workers := self._workers()):
            if should_stop():
                raise Cancelled(STOPPED)
            if time.monotonic() > deadline:
                raise ClusterError(f"{self._whose()} has had no workers{self._asked()} for {self._patience_s:.0f} s")
            if not waits:
                self._notice(f"{self._whose()} has no workers{self._asked()}; waiting for them")
                waits = True
            time.sleep(POLL_S)
        new = sorted(workers.keys() - self._checked)
        if new:
            self._check(new, workers)
        self._checked = frozenset(workers)

    def deaths(self, error: LostError) -> int:
        """Return how many workers a lone evaluation took along; none where the scheduler is gone."""
        from distributed import KilledWorker

        if self._client.status != "running" or not isinstance(error, LostEvaluationError):
            return 0
        if isinstance(error.__cause__, KilledWorker):
            return int(error.__cause__.allowed_failures) + 1
        return int(isinstance(error.__cause__, CancelledError))  # the last worker that had the evaluator

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close(timeout=1)

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the scheduler says of the workers that evaluations could run on, by address."""
        info = self._spoken(lambda: self._client.scheduler_info(n_workers=-1))
        asked = self._cluster.resources
        return {
            address: worker
            for address, worker in info["workers"].items()
            if all(worker["resources"].get(name, 0) >= amount for name, amount in asked)
        }

    def _check(self, new: list[str], workers: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse workers of several threads, or of other versions than this process.

        Raises:
            ClusterError: One of `new` is such a worker.

        """
        for address in new:
            if (found := workers[address]["nthreads"]) != 1:
                raise ClusterError(
                    f"{self._whose()} has a worker of {found} threads ({address}), which would evaluate several "
                    "candidates at a time in one process: start workers with --nthreads 1, and as many as there are "
                    "cores with --nworkers"
                )
        for name, function, arguments in _FACTS:
            expected = _known(function(*arguments))
            answers = self._spoken(partial(self._client.run, function, *arguments, workers=new, on_error="return"))
            for address, answer in answers.items():
                if isinstance(answer, OSError):
                    raise LostError(f"worker {address} does not answer") from answer
                if (found := _known(answer)) != expected:
                    raise ClusterError(
                        f"{self._whose()} has a worker of another kind than this process: {name} is {expected} here "
                        f"and {found} at {address}; scores would not be the same, use the same on both sides"
                    )

    def _spoken(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever Dask answers
        """Return what the scheduler answers.

        Raises:
            LostError: It does not.

        """
        lost = LostError(f"the connection to {self._cluster.url} was lost")
        if self._client.status != "running":
            raise lost
        try:
            return call()
        except (OSError, CancelledError, RuntimeError, ValueError) as error:  # Dask has no common error
            raise lost from error

    def _whose(self) -> str:
        """Name the cluster."""
        return f"the cluster at {self._cluster.url}"

    def _asked(self) -> str:
        """Say what its workers must offer."""
        asked = ", ".join(f"{name}={amount:g}" for name, amount in self._cluster.resources)
        return f" that offer {asked}" if asked else ""


def _known(answer: object) -> str:
    """Return a fact as text; of Python's version the first two parts, which pickles depend on."""
    if isinstance(answer, ImportError):  # as PackageNotFoundError is
        return "missing"
    if isinstance(answer, bool):
        return "there" if answer else "missing"
    return ".".join(answer[:2]) if isinstance(answer, tuple) else str(answer)


def _connected(
    cluster: Cluster, threads: int, notice: Callable[[str], None], patience_s: float, should_stop: ShouldStop
) -> _Connection:
    """Connect to the scheduler.

    Raises:
        ClusterError: It does not answer in time, or does not take the certificates.
        Cancelled: `should_stop` said so before.

    """
    from distributed import Client, Security
    from distributed.comm.core import FatalCommClosedError

    security = Security(
        require_encryption=cluster.is_encrypted,
        tls_ca_file=cluster.ca and str(cluster.ca),
        tls_client_cert=cluster.cert and str(cluster.cert),
        tls_client_key=cluster.key and str(cluster.key),
    )
    deadline = time.monotonic() + patience_s
    waits = False
    while True:
        if should_stop():
            raise Cancelled(STOPPED)
        try:
            client = Client(cluster.url, security=security, timeout=_ATTEMPT_S, set_as_default=False)
            return _Connection(cluster, client, threads, notice, patience_s)
        except FatalCommClosedError as error:
            raise ClusterError(f"{cluster.url}: the certificates are not taken ({error})") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no Dask scheduler answered at {cluster.url} for {patience_s:.0f} s ({error}); see that it runs "
                    "and can be reached from here. What was evaluated is in the journal: run the search again to go on"
                ) from error
            if not waits:
                notice(f"no scheduler answers at {cluster.url} yet; waiting for it")
                waits = True
