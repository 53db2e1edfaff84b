"""Databases, a service and a network for the tests of the service."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autoprune.formats.onnx_export import export_onnx
from autoprune.service.cli.demo_network import train_demo_network
from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from tests.service.live_service import Live, in_thread
from tests.service.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a running PostgreSQL; a test that stops it starts it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty database of either kind, for what must hold on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network of digits, trained for a little while, as a file; tests change nothing in its folder."""
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    network, module, _ = train_demo_network(epochs=2)
    export_onnx(module, path, input_shape=network.input_shape)
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Return a service that accepts jobs and runs none."""
    with in_thread(Settings(tmp_path_factory.mktemp("live") / "home", run_jobs=False)) as service:
        yield service


@pytest.fixture(scope="module")
def records(live: Live) -> Iterator[Records]:
    """Return the records of that service, opened once more."""
    with closing(Records(live.settings.url)) as records:
        yield records
