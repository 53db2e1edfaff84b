"""The profiler on real units of onnxruntime: what it measures, resumes, refuses; and how it chooses widths."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import LatencyTableError
from autoprune.latency_tables import _bench, profiler
from autoprune.latency_tables._kernel_times import (
    kernel_times_us,
    profiling_overhead_us,
    quantiles_us,
    times_of_runs,
)
from autoprune.latency_tables.profiler import Profile, WidthGrid, profile, profile_units
from autoprune.latency_tables.table import Conditions, LatencyTable
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.width_grid import bends, coarse, merged_grids, sticking_out

CONV = Unit("conv", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (12, 12), 0, 0, "relu")
DEPTHWISE = Unit("depthwise", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (12, 12), 0, 0, "relu6")
GRIDS = (
    WidthGrid(CONV, (8, 16, 24, 32, 40), (8, 16, 24, 32, 40, 48, 50)),
    WidthGrid(DEPTHWISE, (8, 16, 24), (8, 16, 24)),
)


@pytest.fixture(autouse=True)
def short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer runs: what is tested here is not how precise the times are."""
    monkeypatch.setattr(_bench, "SESSION_S", 0.02)
    monkeypatch.setattr(_bench, "LEAST_RUNS", 3)
    monkeypatch.setattr(_bench, "LEAST_BYTES", 1)


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_grids_come_back_full_and_make_a_table() -> None:
    found = profile(GRIDS, tolerance=0.5)
    assert found.complete
    for c_in in (8, 24, 40):
        for c_out in (8, 32, 48, 50):
            timing = found.timings[CONV.with_channels(c_in, c_out)]
            assert 0 < timing.p10_us <= timing.median_us <= timing.p90_us
            assert timing.repeats >= 3
    assert {unit.c_out for unit in found.timings if unit.shape == DEPTHWISE} == {8, 16, 24}
    table = LatencyTable(Conditions("test", "x86_64", "onnxruntime 1.0"), found.timings)
    assert table.times_us(CONV, np.array([16]), np.array([16, 50])).shape == (1, 2)
    measured = {(unit.c_in, unit.c_out) for unit in {**found.timings, **found.checks} if unit.shape == CONV}
    assert measured <= {(a, b) for a in GRIDS[0].c_in for b in GRIDS[0].c_out}
    assert found.drift >= 0
    assert set(found.interpolation_error) <= {CONV}


def test_wider_units_take_longer() -> None:
    small, large = CONV.with_channels(8, 8), CONV.with_channels(64, 64)
    found = profile_units([small, large])
    assert found[large].p10_us > 3 * found[small].p10_us


def test_int8_units_have_times_of_their_own(tmp_path: Path) -> None:
    units = [CONV.with_channels(64, 64), DEPTHWISE.with_channels(64, 64)]
    found = profile_units(units, precision="int8", state=tmp_path / "state.jsonl")
    assert all(0 < found[unit].p10_us <= found[unit].median_us for unit in units)
    with pytest.raises(LatencyTableError, match="other conditions"):
        profile_units(units, state=tmp_path / "state.jsonl")


def test_kernels_are_timed_not_whole_runs() -> None:
    units = [CONV.with_channels(16, 16)] * 3
    times = kernel_times_us(units, threads=1, batch=1, seconds=1, least=9, most=9)
    assert times.shape == (9, 3)
    lowest = times.min(axis=0)
    assert lowest.max() < 2 * lowest.min()


def test_what_the_profile_adds_is_small_and_taken_off() -> None:
    overhead_us = profiling_overhead_us(threads=1)
    assert 0 <= overhead_us < 50
    end = {"name": "model_run", "dur": 900}
    events = [{"name": "u0.core_kernel_time", "dur": 30}, {"name": "u1.core_kernel_time", "dur": 4}, end]
    (found,) = times_of_runs(events, 2, overhead_us=4.0)
    assert found.tolist() == pytest.approx([26.5, 0.9])


def test_without_time_only_the_coarse_grid_is_measured() -> None:
    found = profile(GRIDS, time_budget_s=0)
    assert not found.complete
    assert {(unit.c_in, unit.c_out) for unit in found.timings if unit.shape == CONV} == {
        (c_in, c_out) for c_in in (8, 24, 40) for c_out in (8, 32, 48, 50)
    }


def test_units_that_cannot_be_run_are_named() -> None:
    with pytest.raises(LatencyTableError, match="conv 3x3 3->8 @12x12"):
        profile_units([replace(CONV, groups=2, c_in=3, c_out=8)])
    with pytest.raises(LatencyTableError, match="expected widths"):
        profile([WidthGrid(CONV, (), (8,))])


def test_nothing_is_left_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    profile_units([CONV.with_channels(8, 8)])
    assert not list(tmp_path.iterdir())


# ---- progress, stopping, going on -----------------------------------------------------------------------------------


def test_progress_counts_up_to_what_is_planned() -> None:
    seen: list[tuple[int, int, float]] = []
    profile(GRIDS, tolerance=0.5, progress=lambda *each: seen.append(each))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert all(0 < done <= planned and eta_s >= 0 for done, planned, eta_s in seen)
    assert seen[-1][0] == seen[-1][1]
    assert seen[-1][2] == 0


def counting(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None) -> list[int]:
    """Count the units of every session that is measured; `before` sees the number of sessions so far."""
    sessions: list[int] = []
    time_units = _bench.kernel_times_us

    def counted(units: list[Unit], **settings: object) -> object:
        before(len(sessions))
        sessions.append(len([unit for unit in dict.fromkeys(units) if unit != _bench.REFERENCE]))
        return time_units(units, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(_bench, "kernel_times_us", counted)
    monkeypatch.setattr(_bench, "MAX_DRIFT", 1e9)
    monkeypatch.setattr(profiler, "DOUBT_ROUNDS", 0)
    return sessions


def test_a_profile_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_bench, "MOST_UNITS", 5)
    state = tmp_path / "folder" / "state.jsonl"
    sessions = counting(monkeypatch)
    first = profile(GRIDS, state=state, should_stop=lambda: len(sessions) >= 2)
    assert not first.complete
    assert not first.timings, "the coarse grid is not complete"
    assert sum(sessions) == len(first.checks) == 10
    whole = profile(GRIDS, state=state, tolerance=0.5)
    assert whole.complete
    assert sum(sessions) == len(whole.timings) + len(whole.checks), "no unit was measured twice"
    assert all(whole.checks.get(unit, whole.timings.get(unit)) == timing for unit, timing in first.checks.items())
    assert profile(GRIDS, state=state, tolerance=0.5).timings == whole.timings
    assert sum(sessions) == len(whole.timings) + len(whole.checks)


def test_an_interrupted_profile_keeps_its_finished_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(sessions: int) -> None:
        if sessions == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_bench, "MOST_UNITS", 4)
    state = tmp_path / "state.jsonl"
    counting(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        profile(GRIDS, state=state)
    assert sum('"unit"' in line for line in state.read_text().splitlines()) == 8


def test_a_last_line_that_was_cut_off_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    units = [CONV.with_channels(8, 8), CONV.with_channels(16, 8)]
    state = tmp_path / "state.jsonl"
    profile_units(units, state=state)
    state.write_bytes(state.read_bytes()[:-7])
    sessions = counting(monkeypatch)
    assert set(profile_units(units, state=state)) == set(units)
    assert sessions == [1]
    assert all(isinstance(json.loads(line), dict) for line in state.read_text().splitlines())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace('"threads": 1', '"threads": 4'), "other conditions"),
        (lambda text: text.replace("profile-state", "journal"), "not a state file"),
        (lambda text: text.replace('{"unit"', '{"unit'), "not a state file"),
        (lambda text: text.replace('"timing": [', '"timing": [-'), "not finite|line 3|above 0"),
    ],
)
def test_foreign_and_damaged_state_files_are_refused(tmp_path: Path, damage: Callable[[str], str], reason: str) -> None:
    state = tmp_path / "state.jsonl"
    profile_units([CONV.with_channels(8, 8)], state=state)
    state.write_text(damage(state.read_text()))
    with pytest.raises(LatencyTableError, match=reason):
        profile_units([CONV.with_channels(8, 8)], state=state)


def test_sessions_whose_reference_drifted_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {3, 4}
    calls: list[int] = []

    def drifting(units: list[Unit], **settings: object) -> object:
        calls.append(len(calls))
        return np.full((3, len(units)), 200.0 if calls[-1] in slow else 100.0)

    monkeypatch.setattr(_bench, "kernel_times_us", drifting)
    monkeypatch.setattr(_bench, "MOST_UNITS", 1)
    monkeypatch.setattr(_bench, "MAX_REPEATED", 1.0)
    found = profile_units([CONV.with_channels(8, 8 * width) for width in range(1, 7)])
    assert len(calls) == 6 + 2
    assert all(99 < timing.median_us < 101 for timing in found.values())


# ---- profiles of onnxruntime ----------------------------------------------------------------------------------------


def test_copies_between_layouts_belong_to_a_unit_only_in_its_middle() -> None:
    run = [
        ("ReorderInput_1", 50), ("u0.feed.pool", 50), ("u0.feed.spread", 50), ("ReorderInput_2", 50),
        ("u0.core.out", 10), ("ReorderOutput_3", 3), ("u0.core.act", 5),
        ("ReorderInput_4", 50), ("u0.drain", 50), ("ReorderOutput_5", 50),
        ("u1.feed.spread", 50), ("HardSigmoid_7", 4), ("Mul_8", 2), ("u1.drain", 50), ("u2.core", 9),
    ]  # fmt: skip
    events = [{"name": f"{name}_kernel_time", "dur": duration} for name, duration in run]
    end = {"name": "model_run", "dur": 900}
    found = list(times_of_runs([{"name": "session"}, *events, end, *events, end], 3))
    assert [each.tolist() for each in found] == [[19.5, 7.0, 9.5]] * 2


def test_whole_microseconds_are_resolved_further() -> None:
    exact = np.random.default_rng(0).normal(8.3, 1.5, 1000)
    found = quantiles_us(np.floor(exact) + 0.5, (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, np.quantile(exact, (0.1, 0.5, 0.9)), atol=0.15)
    assert quantiles_us(np.full(9, 0.5), (0.1,))[0] > 0


# ---- which widths ---------------------------------------------------------------------------------------------------


def test_coarse_widths_hold_both_ends_and_what_is_not_aligned() -> None:
    assert coarse(range(8, 129, 8)) == [8, 72, 128]
    assert coarse([3]) == [3]
    assert coarse([8, 16, 24, 27]) == [8, 16, 24, 27]


def test_bends_of_a_staircase_are_found_whatever_their_period() -> None:
    widths = list(range(8, 513, 8))
    stairs = (
        np.ceil(np.array(widths) / 32) * 32 + 20.0
    )  # a step every fourth width, between knots that all lie on steps
    chosen = bends(widths, np.stack([stairs, 3 * stairs]), coarse(widths), 0.03)
    knots = sorted({*coarse(widths), *(width for width, _ in chosen)})
    lines = np.interp(widths, knots, stairs[np.isin(widths, knots)])
    assert np.abs(lines / stairs - 1).max() <= 0.03
    assert len(knots) < len(widths)
    assert chosen[0][1] == max(error for _, error in chosen)


def test_straight_lines_need_no_further_widths() -> None:
    widths = list(range(8, 257, 8))
    assert bends(widths, np.array([widths, [5 + 2 * width for width in widths]]), coarse(widths), 0.01) == []


def test_units_slower_than_wider_ones_stick_out() -> None:
    units = [CONV.with_channels(a, b) for a in (8, 16, 24) for b in (8, 16, 24)]
    times = {unit: float(unit.c_in * unit.c_out) for unit in units}
    assert sticking_out(times, 0.03) == []
    odd = CONV.with_channels(16, 16)
    assert sticking_out({**times, odd: 500.0}, 0.03) == [odd]


def test_grids_of_one_shape_are_united() -> None:
    numbers = np.array([8, 16])
    one = WidthGrid(CONV.with_channels(3, 4), (8, 16), (8,))
    (found,) = merged_grids([one, WidthGrid(CONV, tuple(numbers), (24, 8))])
    assert found == WidthGrid(CONV, (8, 16), (8, 24))
    assert all(type(width) is int for width in found.c_in)


def test_the_profiler_needs_only_numpy_and_onnxruntime() -> None:
    code = (
        "import sys, autoprune.latency_tables.profiler; sys.exit(bool({'torch', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert Profile.__slots__
