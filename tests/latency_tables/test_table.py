"""Latency tables: what they hold, refuse, and answer."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.errors import LatencyTableError
from autoprune.latency_tables._table_file import sha256_of
from autoprune.latency_tables.table import Calibration, Conditions, LatencyTable, Timing
from autoprune.latency_tables.unit import Unit

CONV = Unit("conv", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (14, 14), 0, 0, "relu")
DEPTHWISE = Unit("depthwise", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 1, (14, 14), 0, 0, "relu6")
CONDITIONS = Conditions("bench-1", "x86_64", "onnxruntime 1.31.0")


def timing(median_us: float) -> Timing:
    return Timing(median_us, 0.9 * median_us, 1.25 * median_us, 50)


def conv_us(c_in: int, c_out: int) -> float:
    """A time that is bilinear in the widths."""
    return 3.0 + 0.5 * c_in + 0.25 * c_out + 0.0625 * c_in * c_out


def entries(widths_in: list[int], widths_out: list[int]) -> dict[Unit, Timing]:
    return {CONV.with_channels(i, o): timing(conv_us(i, o)) for i in widths_in for o in widths_out}


def table(**changes: object) -> LatencyTable:
    values: dict[str, Any] = {
        "conditions": CONDITIONS,
        "entries": {
            **entries([8, 16, 32], [8, 24, 64]),
            **{DEPTHWISE.with_channels(c, c): timing(float(c)) for c in (8, 16, 32)},
        },
        "calibrations": {"abc": Calibration(1.02, 3.5, 0.02, 0.05, ((100.0, 101.0), (200.0, 195.0)))},
        "provenance": {"measured_at": "2026-01-02T03:04:05+00:00", "drift": 0.01},
    }
    return LatencyTable(**{**values, **changes})


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def test_a_file_gives_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    table().save(path)
    loaded = LatencyTable.load(path)
    assert loaded == table()
    assert loaded.sha256 == table().sha256 == json.loads(path.read_text())["sha256"]
    assert sorted(path.parent.iterdir()) == [path]
    assert pickle.loads(pickle.dumps(loaded)) == loaded  # noqa: S301 - to a worker of ours
    assert loaded.shapes == (CONV, DEPTHWISE)
    assert [widths.tolist() for widths in loaded.widths(CONV.with_channels(5, 5))] == [[8, 16, 32], [8, 24, 64]]


def test_measured_widths_are_exact_and_aligned_ones_between_them_bilinear() -> None:
    found = table().times_us(CONV.with_channels(99, 7), ints(8, 16, 24, 32), ints(8, 16, 24, 40, 64))
    expected = [[conv_us(i, o) for o in (8, 16, 24, 40, 64)] for i in (8, 16, 24, 32)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_an_unaligned_width_costs_what_the_next_wider_aligned_one_costs() -> None:
    found = table().times_us(CONV, ints(1, 7, 9, 17, 25), ints(3, 9, 33, 63))
    np.testing.assert_allclose(found, [[conv_us(i, o) for o in (8, 16, 40, 64)] for i in (8, 8, 16, 24, 32)])


def test_a_measured_unaligned_width_is_itself_and_bounds_its_block() -> None:
    odd = table(entries=entries([3], [8, 16, 24, 30]))
    # 28 lies in the block of 30, which was measured; 26 rounds up to it too, never to a point between 24 and 30
    np.testing.assert_allclose(
        odd.times_us(CONV, ints(3), ints(30, 28, 25, 17)), [[conv_us(3, o) for o in (30, 30, 30, 24)]]
    )
    # 16 cannot be interpolated between 8 and the unaligned 20: it costs what 20 costs
    coarse = table(entries=entries([3], [8, 20]))
    np.testing.assert_allclose(coarse.times_us(CONV, ints(3), ints(9, 16, 18)), [[conv_us(3, 20)] * 3])


def test_units_of_one_width() -> None:
    by_out = table().times_us(DEPTHWISE, ints(1), ints(8, 12, 24, 32))
    np.testing.assert_allclose(by_out, [[8, 16, 24, 32]])
    alike = table().times_us(DEPTHWISE, ints(8, 24), ints(8, 24))
    np.testing.assert_allclose(alike, [[8, 24], [8, 24]])
    with pytest.raises(LatencyTableError, match=r"depthwise 3x3 @14x14 stride 2x2 \+relu6 with 33, 40 channels \(meas"):
        table().times_us(DEPTHWISE, ints(1), ints(8, 33, 40))


def test_nothing_is_extrapolated() -> None:
    with pytest.raises(
        LatencyTableError,
        match=r"bench-1 has no times of conv 3x3 @14x14 \+relu with 33 channels that enter \(measured: 8 to 32\) and "
        r"65, 72 channels that leave \(measured: 8 to 64\): measure these widths",
    ):
        table().times_us(CONV, ints(8, 33), ints(72, 8, 65))
    with pytest.raises(LatencyTableError, match=r"with 4, 8 channels that enter \(measured: 16 to 32\)"):
        table(entries=entries([16, 32], [8])).times_us(CONV, ints(4, 8), ints(8))
    with pytest.raises(LatencyTableError, match="has no times of linear 1x1 @1x1"):
        table().times_us(Unit("linear", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1), 8, 8), ints(8), ints(8))


def test_holes_of_a_refined_grid_are_filled_from_their_rows_and_columns() -> None:
    full = entries([8, 16, 24, 32], [8, 16, 24, 32])
    holes = {CONV.with_channels(i, o) for i, o in ((16, 8), (24, 8), (16, 16), (24, 24), (8, 24))}
    found = table(entries={u: t for u, t in full.items() if u not in holes}).times_us(CONV, *[ints(8, 16, 24, 32)] * 2)
    np.testing.assert_allclose(found, [[conv_us(i, o) for o in (8, 16, 24, 32)] for i in (8, 16, 24, 32)])
    corner = {u: t for u, t in entries([8, 16], [8, 16]).items() if (u.c_in, u.c_out) != (8, 8)}
    with pytest.raises(LatencyTableError, match="no times around 8->8 channels"):
        table(entries=corner).times_us(CONV, ints(8), ints(8))


def test_merging() -> None:
    later = table(
        entries={CONV.with_channels(c_in, 8): timing(1000.0 + c_in) for c_in in (8, 128)},
        calibrations={"def": Calibration(1.0, 0.0, 0.01, 0.01)},
        provenance={"measured_at": "2026-02-02T03:04:05+00:00"},
    )
    for merged in (table().merged(later), later.merged(table())):
        assert merged.entries[CONV.with_channels(8, 8)].median_us == 1008.0
        between = {unit for unit in table().entries if unit.shape == CONV.shape and unit.c_out == 8 and unit.c_in != 8}
        assert between
        assert set(merged.entries) == {*table().entries, *later.entries} - between
        assert set(merged.calibrations) == {"def"}  # the older one was of other times
        assert merged.provenance == {"measured_at": "2026-02-02T03:04:05+00:00", "drift": 0.01}
    again = replace(table(), calibrations={"def": Calibration(1.0, 0.0, 0.01, 0.01)})
    assert set(table().merged(again).calibrations) == {"abc", "def"}
    other = table(conditions=Conditions("bench-1", "x86_64", "onnxruntime 1.30.0", threads=2))
    with pytest.raises(
        LatencyTableError, match=r"differ in runtime 'onnxruntime 1.31.0' against .*, threads 1 against 2"
    ):
        table().merged(other)


def test_diff() -> None:
    changed = {
        CONV.with_channels(8, 8): timing(2 * conv_us(8, 8)),
        CONV.with_channels(8, 24): timing(conv_us(8, 24) / 4),
    }
    after = table(entries={**entries([8, 16], [8, 24, 64]), **changed, CONV.with_channels(64, 8): timing(1.0)})
    diff = table().diff(after)
    assert diff.conditions == ""
    assert [(change.unit.c_out, change.ratio) for change in diff.changed] == [(24, 0.25), (8, 2.0)]
    assert diff.added == (CONV.with_channels(64, 8),)
    assert {unit.op for unit in diff.removed} == {"conv", "depthwise"}
    assert table().diff(table()).changed == ()


def sealed(change: Callable[[dict[str, Any]], object]) -> str:
    """The text of a table that somebody changed, and hashed again."""
    data = json.loads(table().to_json())
    change(data)
    data["sha256"] = sha256_of({name: data.get(name) for name in ("conditions", "units", "calibrations", "provenance")})
    return json.dumps(data)


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[Any, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def test_altered_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    text = table().to_json()
    for broken, reason in (
        (text[:-40], "cut off or damaged"),
        (text.replace('"drift":0.01', '"drift":0.02'), "altered after it was written"),
        (text.replace("100.0", "1000.0", 1), "altered after it was written"),
        (text.replace('"drift":0.01', '"drift":NaN'), "expected finite numbers, found NaN"),
        (text.replace('"drift":0.01', '"drift":1e999'), "expected finite numbers, found 1e999"),
        (text.replace('"drift":0.01', '"drift":0.01,"drift":0.02'), "every name once, found 'drift' twice"),
        (text.replace('"version": 1', '"version": 2'), "expected version 1 of the format, found 2"),
        (text.replace('"version": 1', '"version": true'), "expected version 1 of the format, found True"),
        (text.replace("autoprune-latency-table", "other"), "expected a latency table .*found 'other'"),
        ("[" * 100_000, "cut off or damaged"),
        ("[]", "found 'list'"),
        ("", "cut off or damaged"),
    ):
        path.write_text(broken)
        with pytest.raises(LatencyTableError, match=reason) as caught:
            LatencyTable.load(path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LatencyTableError, match="cut off or damaged"):
        LatencyTable.load(path)
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(LatencyTableError, match="found no readable file"):
            LatencyTable.load(missing)


ROW = ("units", 0, "times", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("note", value="x"), "the table: expected the fields .* found it with unknown 'note'"),
        (lambda data: data.pop("provenance"), "found it without provenance"),
        (put("conditions", "gpu", value=1), "conditions: .*unknown 'gpu'"),
        (put("conditions", "device", value="../../etc/passwd"), "a device's name"),
        (put("conditions", "device", value="a..b"), "a device's name"),
        (put("conditions", "device", value="a.json"), "do not end in .json"),
        (put("conditions", "precision", value="bf16"), "precision: expected one of fp32, int8"),
        (put("conditions", "graph_options", value=3), "graph_options: expected one of"),
        (put("conditions", "threads", value=True), "threads: expected a whole number"),
        (put("conditions", "batch", value=0), "batch: expected a whole number"),
        (put("conditions", "runtime", value="x\n"), "runtime: expected 1 to 500 printable"),
        (put("conditions", value=[]), "conditions: expected an object, found list"),
        (put(*ROW, 2, value=0.0), "median_us: expected microseconds above 0, found 0.0"),
        (put(*ROW, 2, value=-1.0), "above 0, found -1.0"),
        (put(*ROW, 2, value=10**400), "median_us: expected microseconds"),
        (put(*ROW, 4, value=1e300), "p90_us: expected microseconds"),
        (put(*ROW, 3, value="7"), "p10_us: expected microseconds above 0, found '7'"),
        (put(*ROW, 3, value=1000.0), "expected p10 <= median <= p90"),
        (put(*ROW, 5, value=0), "repeats: expected a whole number"),
        (put(*ROW, 0, value=2**40), "expected 1 to 16777216 channels"),
        (put(*ROW, 0, value=8.5), "expected times as"),
        (put(*ROW, value=[8, 8, 1.0]), "expected times as"),
        (put("units", 0, "times", 1, 1, value=8), "conv 3x3 8->8 @14x14 .* there twice"),
        (put("units", 1, "times", 0, 0, value=16), "as many channels leave a depthwise unit as enter it"),
        (put("units", 0, "unit", "op", value="magic"), "a unit's op is one of"),
        (put("units", 0, "unit", "c_in", value=8), "channel counts belong to the times"),
        (put("units", 0, "unit", "groups", value=3), "3 groups do not divide the channels"),
        (put("units", 0, "unit", "stride", value=[0, 1]), "kernel, stride, dilation, padding or image size"),
        (put("units", 0, "unit", "note", value=1), "a unit has the fields"),
        (put("units", value={}), "units: expected a list"),
        (put("units", value=[]), "expected 1 to 1,000,000 timed units, found 0"),
        (put("units", 0, value=7), "units: expected an object"),
        (put("calibrations", "abc", "scale", value=0), "scale: expected a number above 0"),
        (put("calibrations", "abc", "error", value=0.5), "expected 0 <= error <= worst"),
        (put("calibrations", "abc", "offset_us", value="1"), "offset_us: expected a finite number"),
        (put("calibrations", "abc", "points", 0, value=[1.0]), "points: expected pairs"),
        (put("calibrations", "abc", "points", 0, value=[1.0, -1.0]), "microseconds above 0"),
        (put("calibrations", "abc", value=None), "calibration 'abc': expected an object"),
        (put("provenance", "x", value=[1]), "provenance: x: expected a text or a finite number"),
        (put("provenance", "x", value="y" * 501), "provenance: x: expected 1 to 500 printable"),
    ],
)
def test_values_that_cannot_be_are_refused(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    with pytest.raises(LatencyTableError, match=reason):
        LatencyTable.from_json(sealed(change))


def test_a_table_is_checked_where_it_is_made() -> None:
    assert LatencyTable.from_json(sealed(lambda data: None)) == table()
    for value in (float("nan"), float("inf")):
        with pytest.raises(LatencyTableError, match="median_us"):
            Timing(value, 1.0, 1.0, 1)
        with pytest.raises(LatencyTableError, match="error"):
            Calibration(1.0, 0.0, value, value)


def test_a_table_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, autoprune.latency_tables.table; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
