"""Latency as a cost: sums of a table's units, exact for every plan, as tables of widths, and fast."""

import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.costs.fused_units import FusedUnit, fused_units, structure_key
from autoprune.costs.latency_cost import latency_cost
from autoprune.costs.quantities import LATENCY
from autoprune.costs.table_request import pruned_units
from autoprune.errors import LatencyTableError
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables.table import Calibration, LatencyTable
from autoprune.latency_tables.unit import Unit
from autoprune.network.layers import Concat, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.zoo.registry import build
from tests.corpus import NETWORKS, input_shape
from tests.made_up_tables import made_up_table

SCALE, OFFSET_US = 1.2, 7.0


def _time_us(unit: Unit) -> float:
    """Return a made-up time that does not always rise with the channels."""
    return 2.0 + (unit.c_in * 31 + unit.c_out * 17 + unit.input_hw[0]) % 13 + unit.c_in * unit.c_out / 64


def _table(network: Network, offset_us: float = OFFSET_US) -> LatencyTable:
    return made_up_table(network, _time_us, Calibration(SCALE, offset_us, 0.03, 0.06))


def _concatenated() -> Network:
    """Return a network whose last convolution meets four groups."""
    b = NetworkBuilder("image", (3, 8, 8))
    branches = [b.add(nn.Conv2d(3, out, 3, padding=1), b.input, name=f"branch{out}") for out in (16, 24, 32)]
    joined = b.add(nn.ReLU(), b.add(Concat(1), *branches, name="join"), name="relu")
    last = b.add(nn.Conv2d(72, 24, 3, padding=1), joined, name="last")
    flat = b.add(Reshape((-1, 24)), b.add(nn.AdaptiveAvgPool2d(1), last, name="pool"), name="flat")
    return b.finish(b.add(nn.Linear(24, 4), flat, name="classifier"))


def _problem(name: str, *, include_residual: bool = True, offset_us: float = OFFSET_US) -> PruningProblem:
    network = _concatenated() if name == "concatenated" else build(name)
    budget = Budget.parse("macs=99.9%")
    return pruning_problem(network, budget, latencies=_table(network, offset_us), include_residual=include_residual)


def _plans(problem: PruningProblem, n: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.array([[generator.choice(width) for width in problem.widths] for _ in range(n)])


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2", "concatenated", "vgg11_bn"])
def test_every_plan_costs_the_sum_of_its_units(name: str) -> None:
    problem = _problem(name)
    units = fused_units(problem.network, problem.all_groups)
    for kept in _plans(problem, 20):
        found = pruned_units(units, problem.groups, problem.all_groups.n_units, kept)
        expected_us = SCALE * sum(_time_us(unit) for unit in found) + OFFSET_US
        assert problem.cost(kept)[LATENCY] == pytest.approx(1000 * expected_us, abs=len(units))


@pytest.mark.parametrize("offset_us", [OFFSET_US, -OFFSET_US])
@pytest.mark.parametrize(("name", "exact"), [("resnet20_cifar", True), ("mobilenet_v2", True), ("concatenated", False)])
def test_tables_of_widths_say_the_same_unless_marked(name: str, exact: bool, offset_us: float) -> None:
    problem = _problem(name, include_residual=False, offset_us=offset_us)
    pairwise = problem.costs.pairwise(problem.widths, only=[LATENCY])[LATENCY]
    assert pairwise.exact is exact
    for kept in _plans(problem, 20):
        choice = [int(np.searchsorted(width, count)) for width, count in zip(problem.widths, kept, strict=True)]
        expected = problem.cost(kept)[LATENCY]
        assert pairwise.at(choice) == (expected if exact else pytest.approx(expected, rel=0.5))


def test_many_plans_at_once_cost_the_same_as_one_by_one() -> None:
    problem = _problem("resnet20_cifar")
    assert problem.costs.latency is not None
    plans = _plans(problem, 50)
    assert problem.costs.latency.at(plans).tolist() == [problem.cost(kept)[LATENCY] for kept in plans]


def test_a_correction_that_leaves_nothing_of_the_smallest_network_is_refused_where_latency_is_limited() -> None:
    problem = _problem("resnet20_cifar", offset_us=0)
    network, smallest_us = problem.network, problem.cost(problem.smallest())[LATENCY] / 1000
    table = _table(network, offset_us=-smallest_us - 1)
    pruning_problem(network, Budget.parse("macs=50%"), latencies=table, include_residual=True)
    with pytest.raises(LatencyTableError, match=r"can price the smallest network .* leaves nothing of it"):
        pruning_problem(network, Budget.parse("latency=90%"), latencies=table, include_residual=True)


@pytest.mark.timing
def test_ten_thousand_plans_of_resnet56_are_priced_in_two_seconds() -> None:
    problem = _problem("resnet56_cifar")
    plans = _plans(problem, 10_000)
    started = time.perf_counter()
    for kept in plans:
        problem.cost(kept)
    assert time.perf_counter() - started < 2.0


def test_widths_are_multiples_of_eight_or_whole() -> None:
    problem = _problem("mobilenet_v2")
    for width, group in zip(problem.widths, problem.groups, strict=True):
        assert all(count % 8 == 0 or count == len(group) for count in width.tolist())


def test_a_table_without_a_layer_names_it(tmp_path: Path) -> None:
    network = build("resnet20_cifar")
    table = _table(network)
    shape = max(table.shapes, key=lambda each: each.input_hw)
    entries = {unit: timing for unit, timing in table.entries.items() if unit.shape != shape}
    poor = LatencyTable(table.conditions, entries, table.calibrations)
    with pytest.raises(LatencyTableError, match=r"layer \S+: the table of toaster has no times of conv 3x3 @32x32"):
        pruning_problem(network, Budget.parse("latency=90%"), latencies=poor)


def test_a_network_with_other_units_is_not_priced_by_a_calibration_of_another() -> None:
    network, other = build("resnet20_cifar"), build("resnet32_cifar")
    groups = find_groups(other)
    widths = [np.array([len(group)]) for group in groups.prunable()]
    with pytest.raises(LatencyTableError, match="never compared with this network"):
        latency_cost(other, groups, groups.prunable(), widths, _table(network))


def _names(units: tuple[FusedUnit, ...]) -> list[tuple[str, ...]]:
    return [unit.layers for unit in units]


def test_a_convolution_takes_its_tail_along_and_a_shortcut_goes_to_the_later_one() -> None:
    network = trace(NETWORKS["resnet_projected"](), input_shape("resnet_projected"))
    units = fused_units(network, find_groups(network))
    layers = network.layers()
    assert sum(unit.unit.add for unit in units) == sum(type(layer).__name__ == "Add" for layer in layers.values())
    flat = [name for names in _names(units) for name in names]
    assert len(flat) == len(set(flat))
    convolutions = [name for name, layer in layers.items() if type(layer).__name__ in ("Conv2d", "Linear")]
    assert [names[0] for names in _names(units) if names[0] in convolutions] == convolutions
    for unit in units:
        activations = [name for name in unit.layers if type(layers[name]).__name__ == "ReLU"]
        assert (unit.unit.activation == "relu") == bool(activations)


def test_the_structure_does_not_depend_on_weights_but_on_shapes() -> None:
    keys = set()
    for seed, size in ((0, 32), (1, 32), (0, 48)):
        network = build("resnet20_cifar", seed=seed, input_shape=(3, size, size))
        keys.add(structure_key(fused_units(network, find_groups(network))))
    assert len(keys) == 2


def test_a_pool_over_the_whole_plane_is_a_global_one() -> None:
    def pooled(pool: nn.Module) -> str:
        b = NetworkBuilder("image", (3, 8, 8))
        x = b.add(pool, b.add(nn.Conv2d(3, 16, 3, padding=1), b.input, name="conv"), name="pool")
        network = b.finish(b.add(nn.Linear(16, 4), b.add(Reshape((-1, 16)), x, name="flat"), name="classifier"))
        return structure_key(fused_units(network, find_groups(network)))

    assert pooled(nn.AvgPool2d(8)) == pooled(nn.AdaptiveAvgPool2d(1)) != pooled(nn.AvgPool2d(5, 8))
