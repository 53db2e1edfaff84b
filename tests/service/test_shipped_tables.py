"""The latency tables that come with autoprune."""

from pathlib import Path

import pytest

from autoprune.costs.budget import Budget
from autoprune.costs.quantities import LATENCY
from autoprune.latency_tables.table import LatencyTable
from autoprune.problem import pruning_problem
from autoprune.service.device_tables import SHIPPED, table_id
from autoprune.zoo.registry import build

TABLES = sorted(SHIPPED.glob("*.json"))


def test_there_are_some() -> None:
    assert TABLES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_files_are_found_under_their_conditions(path: Path) -> None:
    table = LatencyTable.load(path)
    assert path.stem == table_id(table.conditions)
    assert all(calibration.error <= 0.05 for calibration in table.calibrations.values())


@pytest.mark.parametrize("name", ["resnet56_cifar", "mobilenet_v1", "mobilenet_v2"])
def test_networks_of_the_zoo_can_be_priced(name: str) -> None:
    (table,) = [LatencyTable.load(path) for path in TABLES if path.stem.startswith("amd-epyc.")]
    problem = pruning_problem(build(name), Budget.parse("latency=70%"), latencies=table, criterion="l2")
    full = problem.cost(problem.costs.full())[LATENCY]
    assert problem.fits(problem.smallest())
    assert 1_000_000 < full < 100_000_000  # between 1 and 100 ms
