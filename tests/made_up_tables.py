"""Latency tables of a device that does not exist: times by a formula, so that sums of them are known."""

from collections.abc import Callable

from autoprune.costs.fused_units import fused_units, structure_key
from autoprune.costs.table_request import table_request
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables.session import RUNTIME
from autoprune.latency_tables.table import ONE_WIDTH, Calibration, Conditions, LatencyTable, Timing
from autoprune.latency_tables.unit import Unit
from autoprune.network.network import Network


def made_up_table(
    network: Network, time_us: Callable[[Unit], float], calibration: Calibration, precision: str = "fp32"
) -> LatencyTable:
    """Return the table of a toaster, with all units that plans of `network` reach."""
    groups = find_groups(network)
    units = fused_units(network, groups)
    entries = {}
    for grid in table_request(units, groups):
        for c_out in grid.c_out:
            for c_in in (c_out,) if grid.shape.op in ONE_WIDTH else grid.c_in:
                unit = grid.shape.with_channels(c_in, c_out)
                entries[unit] = Timing(time_us(unit), 0.9 * time_us(unit), 1.1 * time_us(unit), 10)
    conditions = Conditions("toaster", "mips", RUNTIME, precision)
    return LatencyTable(conditions, entries, {structure_key(units): calibration}, {"processor": "toaster 3000"})


def staircase_us(unit: Unit) -> float:
    """Return a made-up staircase: 8 channels at a time."""
    rows, columns = unit.output_hw
    blocks = -(-unit.c_in // 8) * -(-unit.c_out // 8)
    return 1.0 + blocks * rows * columns * max(1, unit.kernel[0] * unit.kernel[1]) / 20
