"""What one job may use, and how that is found out; that jobs over a limit end is in test_job_runner."""

import os
import signal
import subprocess
import sys
import time

from autoprune.service.engine.job_limits import MEMORY_SHARE, JobLimits, machine_bytes, resident_bytes
from autoprune.service.settings import MIB, Settings


def test_the_memory_of_a_job_is_that_of_all_its_processes() -> None:
    code = "import os, time; held = b'x' * (64 * 2**20); print(flush=True); time.sleep(600)"
    children = f"import subprocess, sys; [subprocess.Popen([sys.executable, '-c', {code!r}]) for _ in range(2)]; {code}"
    with subprocess.Popen([sys.executable, "-c", children], start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        assert 3 * 64 < resident_bytes(process.pid) / MIB < 3 * 64 + 100
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while resident_bytes(process.pid) and time.monotonic() < deadline:  # the orphans die in their own time
        time.sleep(0.02)
    assert resident_bytes(process.pid) == 0


def test_limits_of_jobs_are_settings() -> None:
    settings = Settings.from_environment({"AUTOPRUNE_JOB_MEMORY_MIB": "5", "AUTOPRUNE_JOB_SECONDS": "7"})
    found = JobLimits.of(settings)
    assert (found.memory_bytes, found.seconds) == (5 * MIB, 7)
    there = machine_bytes()
    assert there is not None
    for workers in (1, 3):  # together no more than the machine has
        usual = JobLimits.of(Settings.from_environment({"AUTOPRUNE_WORKERS": str(workers)}))
        assert (usual.memory_bytes, usual.seconds) == (int(MEMORY_SHARE * there / workers), None)
