"""Freed activations stay with the process: large blocks cause hardly any page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from autoprune.network.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()


def blocks():
    return [torch.zeros(size * 2**20, dtype=torch.uint8) for size in (16, 8, 12, 16, 20, 16, 24)]


blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_kept_memory_is_not_faulted_in_again() -> None:
    faults = {mode: min(_faults(mode) for _ in range(3)) for mode in ("default", "keep")}
    assert faults["keep"] < 0.5 * faults["default"]


def _faults(mode: str) -> int:
    """Count page faults; a machine that is short of memory takes pages away and only ever adds some."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, check=True).stdout)
