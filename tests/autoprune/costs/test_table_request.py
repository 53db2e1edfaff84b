"""What a latency table is asked to hold prices every aligned plan; units of pruned networks are what these run."""

import numpy as np
import pytest

from autoprune.costs.fused_units import FusedUnit, fused_units
from autoprune.costs.table_request import pruned_units, table_request
from autoprune.costs.widths import allowed_widths
from autoprune.errors import LatencyTableError
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.latency_tables.table import Conditions, LatencyTable, Timing
from autoprune.latency_tables.width_grid import WidthGrid
from autoprune.network.network import Network, network_of
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.zoo.registry import build
from tests.corpus import exported
from tests.corpus import input_shape as shape_of

CORPUS = (
    "vgg", "lenet", "resnet_padded", "resnet_projected", "mobilenet_v1", "mobilenet_v2", "resnext", "se_conv",
    "densenet", "inception", "shufflenet_v1", "shufflenet_v2", "irregular",
)  # fmt: skip


def network(name: str) -> Network:
    if name in CORPUS:
        return load_network(exported(name, "torchscript"), input_shape=shape_of(name))
    return build(name, input_shape=(3, 32, 32))


def table_of(grids: tuple[WidthGrid, ...]) -> LatencyTable:
    units = [unit for grid in grids for unit in grid.units(grid.c_in, grid.c_out)]
    return LatencyTable(Conditions("x", "y", "z"), {unit: Timing(1.0, 1.0, 1.0, 1) for unit in units})


def parts(name: str) -> tuple[Network, ChannelGroups, tuple[FusedUnit, ...]]:
    found = network(name)
    groups = find_groups(found)
    return found, groups, fused_units(found, groups)


@pytest.mark.parametrize("name", [*CORPUS, "resnet20_cifar", "mobilenet_v2", "vgg11_bn"])
def test_every_aligned_plan_can_be_priced(name: str) -> None:
    original, all_groups, units = parts(name)
    groups = all_groups.prunable(include_residual=True)
    table = table_of(table_request(units, all_groups))
    rng = np.random.default_rng(0)
    for trial in range(4):
        choices = [allowed_widths(len(group), 8, 0.9) for group in groups]
        picks = [0 if trial == 0 else -1 if trial == 1 else int(rng.integers(len(widths))) for widths in choices]
        kept = np.array([widths[pick] for widths, pick in zip(choices, picks, strict=True)], dtype=np.int64)
        found = pruned_units(units, groups, all_groups.n_units, kept)
        for unit in found:
            times = table.times_us(unit, np.array([unit.c_in]), np.array([unit.c_out]))
            assert times.tolist() == [[1.0]], unit
    plan = Plan({g.name: tuple(range(k)) for g, k in zip(groups, kept.tolist(), strict=True)}, original.fingerprint())
    smaller = network_of(prune(original, all_groups, plan), original.input_shape)
    assert [each.unit for each in fused_units(smaller, find_groups(smaller))] == list(found)


def test_narrower_requests() -> None:
    _, all_groups, units = parts("resnet20_cifar")
    whole = table_of(table_request(units, all_groups))
    inner = table_of(table_request(units, all_groups, max_ratio=0.5, include_residual=False))
    assert set(inner.entries) < set(whole.entries)
    conv = next(each.unit for each in units if each.unit.c_in == each.unit.c_out == 64)
    assert [widths.tolist() for widths in inner.widths(conv)] == [[32, 40, 48, 56, 64], [64]]
    with pytest.raises(LatencyTableError, match="24 channels that enter"):
        inner.times_us(conv, np.array([24]), np.array([64]))
