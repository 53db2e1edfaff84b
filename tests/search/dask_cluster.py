"""A Dask cluster of real processes on this machine: a scheduler, workers, and who restarts them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: For workers that are killed again and again: they are forked from a process that has imported torch.
FORKED = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}


class DaskCluster:
    """Processes of one cluster.

    Attributes:
        url: Address of the scheduler.
        log: What all processes say.

    """

    def __init__(self, folder: Path, *, scheme: str = "tcp", options: Sequence[str] = (), forked: bool = False) -> None:
        self.log = folder / "cluster.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self._port}"
        self._folder, self._options, self._forked = folder, options, forked
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._keeper: threading.Thread | None = None
        self._ending = threading.Event()

    def start_scheduler(self) -> None:
        """Start the scheduler, at the same port each time, and wait until it listens."""
        said = self._said("Scheduler at:")
        self._scheduler = self._start("scheduler", "--host", self.url, "--port", str(self._port))
        self.wait(lambda: self._said("Scheduler at:") > said)

    def kill_scheduler(self) -> None:
        """Kill the scheduler, which has no time to say goodbye."""
        assert self._scheduler is not None
        self._scheduler.kill()
        self._scheduler.wait()

    def start_workers(self, count: int = 1, *options: str, first: Path = ROOT) -> None:
        """Start worker processes, each watched over by its nanny, and wait until they are registered.

        What lies in `first` is imported before all else.
        """
        said = self._said("Registered to:")
        for _ in range(count):
            self._workers.append(self._start("worker", self.url, *(options or ("--nthreads", "1")), first=first))
        self.wait(lambda: self._said("Registered to:") >= said + count)

    def keep_workers(self) -> None:
        """Start workers that end by themselves again, as a service manager would: they do when a scheduler is gone."""

        def keep() -> None:
            while not self._ending.wait(0.1):
                for number, worker in enumerate(self._workers):
                    if worker.poll() is not None:
                        self._workers[number] = self._start("worker", self.url, "--nthreads", "1")

        self._keeper = threading.Thread(target=keep, name="keeps workers")
        self._keeper.start()

    @property
    def worker_pids(self) -> list[int]:
        """The nannies that run."""
        return [worker.pid for worker in self._workers if worker.poll() is None]

    def close(self) -> None:
        """End everything."""
        self._ending.set()
        if self._keeper is not None:
            self._keeper.join()
        for process in (*self._workers, self._scheduler):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def wait(self, what: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until `what` holds."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def _said(self, words: str) -> int:
        """How often the processes said so."""
        return self.log.read_text().count(words) if self.log.exists() else 0

    def _start(self, kind: str, *arguments: str, first: Path = ROOT) -> subprocess.Popen[bytes]:
        """Start ``dask KIND`` in a process group of its own."""
        command = [sys.executable, "-m", "dask", kind, *arguments, "--no-dashboard", *self._options]
        if kind == "worker":
            command += ["--local-directory", str(self._folder)]
            command += ["--preload-nanny", "tests.search.dask_preload"] if self._forked else []
        environment = {**os.environ, **(FORKED if self._forked else {}), "PYTHONPATH": f"{first}{os.pathsep}{ROOT}"}
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log, process_group=0)


@contextmanager
def dask_cluster(
    folder: Path, workers: int = 0, *, scheme: str = "tcp", options: Sequence[str] = (), forked: bool = False
) -> Iterator[DaskCluster]:
    """Lend a cluster with so many workers."""
    cluster = DaskCluster(folder, scheme=scheme, options=options, forked=forked)
    try:
        cluster.start_scheduler()
        if workers:
            cluster.start_workers(workers)
        yield cluster
    finally:
        cluster.close()
