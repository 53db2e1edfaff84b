"""The best so far: by evaluations, by seconds, of one search and in the mean of several."""

from autoprune.service.results.curves import Curve, best_so_far, evaluations, mean_value, seconds
from autoprune.service.results.job_result import TrialView


def trial(
    number: int, objective: float, *, at: float | None = None, probe: bool = False, spent: float | None = None
) -> TrialView:
    return TrialView(number=number, objective=objective, cost={}, probe=probe, spent=spent, seconds=at)


TRIALS = [trial(1, 0.9, at=0.5, probe=True), trial(2, 0.4, at=1.5), trial(3, 0.3, at=2.0), trial(4, 0.6, at=4.0)]


def test_only_what_could_win_rises_a_curve_and_all_of_it_takes_time() -> None:
    curve = best_so_far(TRIALS, seconds)
    assert curve == Curve((1.5, 4.0), (0.4, 0.6), 4.0)
    assert [curve.value(at) for at in (1.4, 1.5, 3.9, 4.0, 99)] == [None, 0.4, 0.4, 0.6, 0.6]
    assert best_so_far(TRIALS, evaluations) == Curve((2.0, 4.0), (0.4, 0.6), 4.0)


def test_screened_searches_go_by_what_they_spent() -> None:
    curve = best_so_far([trial(1, 0.4, spent=0.25), trial(2, 0.5, spent=1.5)], evaluations)
    assert curve == Curve((0.25, 1.5), (0.4, 0.5), 1.5)


def test_nothing_is_known_where_one_time_is_not() -> None:
    assert best_so_far([*TRIALS, trial(5, 0.1)], seconds) is None
    assert best_so_far(TRIALS[:1], seconds) is None


def test_a_mean_waits_for_every_search() -> None:
    curves = [Curve((1.0, 3.0), (0.2, 0.4), 3.0), Curve((2.0,), (0.6,), 2.0)]
    assert mean_value(curves, 1.0) is None
    assert mean_value(curves, 2.0) == (0.2 + 0.6) / 2
    assert mean_value(curves, 9.0) == (0.4 + 0.6) / 2
