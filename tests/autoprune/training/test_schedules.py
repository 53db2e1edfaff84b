"""Schedules keep exactly what their formulas say, less and less, and end at the target."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import SearchError
from autoprune.training.gradual_schedule import GradualSchedule
from autoprune.training.rounds import check_shares, exponential, kept_count, linear

shares = st.floats(0.001, 1.0)


@given(shares, st.integers(1, 30), st.integers(1, 100_000))
def test_counts_never_rise_and_end_at_the_target(final: float, rounds: int, total: int) -> None:
    for schedule in (linear(final, rounds), exponential(final, rounds)):
        assert len(schedule) == rounds
        assert schedule[-1] == final
        check_shares(schedule)
        counts = [kept_count(total, share) for share in schedule]
        assert counts == sorted(counts, reverse=True)
        assert all(1 <= count <= total for count in counts)
        assert counts[-1] == max(1, math.floor(total * final + 0.5))


def test_rounds_by_hand() -> None:
    assert linear(0.2, 1) == (0.2,)
    assert linear(0.2, 4) == pytest.approx((0.8, 0.6, 0.4, 0.2))
    assert exponential(0.8**5, 5) == pytest.approx((0.8, 0.64, 0.512, 0.4096, 0.32768))
    removed = [before - after for before, after in itertools.pairwise((1.0, *linear(0.1, 7)))]
    assert removed == pytest.approx([0.9 / 7] * 7)


@given(st.floats(0, 0.5), st.floats(0.5, 0.99), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20))
def test_the_gradual_schedule_is_the_cubic_of_the_paper(
    initial: float, final: float, begin: int, interval: int, prunings: int
) -> None:
    schedule = GradualSchedule(final, begin, interval, prunings, initial)
    end = begin + prunings * interval
    assert schedule.end == end
    steps = range(begin, end + 1, interval)
    for step in steps:
        expected = final + (initial - final) * (1 - (step - begin) / (prunings * interval)) ** 3
        assert schedule.sparsity(step) == pytest.approx(expected, abs=1e-12)
    assert [step for step in range(end + 50) if schedule.prunes_at(step)] == list(steps)
    every = [schedule.sparsity(step) for step in range(end + 50)]
    assert every == sorted(every)
    assert all(sparsity == 0 for sparsity in every[:begin])
    assert every[-1] == final
    for before, after in itertools.pairwise(range(end + 50)):  # it changes at prunings alone
        assert schedule.prunes_at(after) or every[before] == every[after]


@pytest.mark.parametrize("make", [lambda: linear(0.0, 1), lambda: linear(1.5, 2), lambda: exponential(0.5, 0)])
def test_what_is_no_schedule_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(SearchError):
        make()


@pytest.mark.parametrize(
    "values", [(1.0, 0, 1, 1), (0.5, -1, 1, 1), (0.5, 0, 0, 1), (0.5, 0, 1, 0), (0.5, 0, 1, 1, 0.6)]
)
def test_what_is_no_gradual_schedule_is_refused(values: tuple[float, int, int, int]) -> None:
    with pytest.raises(SearchError, match="a gradual schedule needs"):
        GradualSchedule(*values)


def test_kept_shares_must_not_rise() -> None:
    with pytest.raises(SearchError, match="must not rise"):
        check_shares((0.5, 0.6))
    with pytest.raises(SearchError, match="needs kept shares"):
        check_shares(())
