"""The process of one attempt at a job, seen from outside: started, told to end, made to end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil

from autoprune.service.settings import Settings
from autoprune.service.storage.database import with_password
from autoprune.service.storage.tables import JobRow

Worker = subprocess.Popen[bytes]

#: Between SIGTERM and SIGKILL.
GRACE_S = 2.0

#: Variables that a job's process gets from the service's environment, besides those of :data:`PASSED_PREFIXES`.
PASSED = frozenset(("HOME", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"))
#: The secrets among them stay behind: a key of ours is for clients, and the database's URL comes over standard input,
#: with the password that libpq would find in ``PGPASSWORD``.
PASSED_PREFIXES = ("AUTOPRUNE_", "CUDA_", "LC_", "MALLOC_", "NVIDIA_", "OPENBLAS_", "PG", "PYTHON", "TORCH_", "XDG_")
SECRETS = frozenset(("AUTOPRUNE_API_KEY", "AUTOPRUNE_DB", "PGPASSWORD"))

_MODULE = "autoprune.service.engine.worker"


@contextlib.contextmanager
def running(settings: Settings, row: JobRow) -> Iterator[Worker]:
    """Start the process of a job's latest attempt; its whole group is gone when the context ends.

    It is the leader of its own group. Its standard input begins with a line, the URL of the records, which may hold a
    password that nobody should find in a process's environment; it stays open while this process lives.
    """
    folder = settings.job_folder(row.id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - this Python and our own module
            [sys.executable, "-m", _MODULE, row.id, str(row.attempts)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(settings, row),
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # it is dead already
            process.stdin.write(with_password(settings.url, os.environ.get("PGPASSWORD")).encode() + b"\n")
            process.stdin.flush()
        yield process
    finally:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _environment(settings: Settings, row: JobRow) -> dict[str, str]:
    """Return a worker's environment: where the service's things are, and how many threads it may use."""
    threads = str(row.spec.get("threads", 1))
    passed = {
        name: value
        for name, value in os.environ.items()
        if (name in PASSED or name.startswith(PASSED_PREFIXES)) and name not in SECRETS
    }
    return {
        **passed,
        "AUTOPRUNE_HOME": str(settings.home),
        "AUTOPRUNE_LOG_LEVEL": settings.log_level,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }


def end(process: Worker) -> None:
    """Ask a worker to stop, and make it."""
    signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def kill_leftover(pid: int, job_id: str) -> None:
    """Kill the worker of a job that outlives its service, if the process `pid` of this machine is one."""
    with contextlib.suppress(psutil.Error):
        if job_id in psutil.Process(pid).cmdline():
            signal_group(pid, signal.SIGKILL)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a worker's whole group, if any of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def cause_of_death(returncode: int) -> str:
    """Say how a process ended."""
    if returncode >= 0:
        return f"the job's process ended with exit code {returncode} and no result; its worker.log says why"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = "; often the system was out of memory" if returncode == -signal.SIGKILL else ""
    return f"the job's process was ended by {name}{hint}"
