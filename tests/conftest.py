"""What every test runs under: one thread, seeds that repeat, and nothing written outside temporary folders.

Tests that assert how long something takes are marked ``timing``; `make test` runs them alone, and all others in two
processes (pytest-xdist, one file stays in one process).
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; inherited by the processes that tests start

import pytest
import torch
from hypothesis import settings

from tests.components import IN_CI, missing

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if IN_CI else "local")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder beside the checkout with ``data/`` (CIFAR-10) and ``models/`` (trained networks)."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        missing(f"the folder {folder} with data/ and models/", "put it beside the checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decoded images for one test run, away from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each test an empty service home, and no database or cluster of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("AUTOPRUNE_DB", raising=False)
        patch.delenv("AUTOPRUNE_CLUSTER", raising=False)
        yield
