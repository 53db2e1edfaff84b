"""The latency tables that come with autoprune."""

from pathlib import Path

import numpy as np
import pytest

from autoprune.costs.budget import Budget
from autoprune.costs.quantities import LATENCY
from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.latency_tables.table import LatencyTable
from autoprune.problem import pruning_problem
from autoprune.search.amc.searcher import Amc
from autoprune.search.amc.settings import AmcSettings
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.service.devices.tables import SHIPPED, table_id
from autoprune.zoo.registry import build
from tests.search.small_problems import FormulaEvaluator

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


@pytest.mark.parametrize("budget", ["latency=60%", "latency=70%,macs=50%"])
def test_an_agent_stays_within_the_latency_of_mobilenet_v1(budget: str) -> None:
    (table,) = [LatencyTable.load(path) for path in TABLES if path.stem.startswith("amd-epyc.")]
    problem = pruning_problem(build("mobilenet_v1"), Budget.parse(budget), latencies=table, criterion="l2")
    evaluator = FormulaEvaluator(problem)
    amc = Amc(problem, 0, 12, AmcSettings(hidden=(16, 16), warmup_episodes=6))
    with Journal("sqlite://") as journal:
        trials = run_search(problem, evaluator, amc, evaluations=12, journal=journal).trials
    assert len(trials) == 12
    assert all(problem.fits(trial.kept) for trial in trials)
    env = LayerwisePruningEnv(problem, evaluator)
    env.reset()
    for _ in problem.groups:
        _, reward, over, _, info = env.step(np.zeros(1, np.float32))
    assert over
    assert reward == info["scores"]["top1"] - 1
    assert info["fits"]
    kept = [round((1 - ratio) * len(group)) for ratio, group in zip(info["policy"], problem.groups, strict=True)]
    wider = problem.widths[-1][problem.widths[-1] > kept[-1]]
    assert not any(problem.fits([*kept[:-1], int(count)]) for count in wider)
