"""Real components that a test needs and a machine may lack: skipped on a developer's machine, an error in CI."""

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest

IN_CI = bool(os.environ.get("CI"))


def missing(what: str, how_to_get: str) -> NoReturn:
    """Skip this test because `what` is missing; in CI, where nothing may be missing, fail it."""
    message = f"needs {what}: {how_to_get}"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


def require_module(name: str) -> None:
    """Go on only where the Python module `name` is installed; it is not imported."""
    if find_spec(name) is None:
        missing(f"the Python module {name}", "make install")
