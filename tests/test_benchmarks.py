"""Benchmarks run by hand, and rarely: what they import is still there."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_every_benchmark_can_be_imported() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(BENCHMARKS)!r}); [importlib.import_module(n) for n in {names}]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
