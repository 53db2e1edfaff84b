"""How good a search was at any point on its way: its best candidate so far, by evaluations or by seconds."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autoprune.service.results.job_result import TrialView

#: Where a trial stands on an axis; None where that is not known.
Clock = Callable[[TrialView], float | None]


def evaluations(trial: TrialView) -> float:
    """Return what was spent when the trial was known, in evaluations on all search images."""
    return float(trial.number) if trial.spent is None else trial.spent


def seconds(trial: TrialView) -> float | None:
    """Return what the search had taken when the trial was known."""
    return trial.seconds


@dataclass(frozen=True, slots=True)
class Curve:
    """The best objective so far, a step function.

    Attributes:
        at: Where it rises, ascending, from the first candidate that could win.
        best: The best so far from there on.
        end: Where the search ended.

    """

    at: tuple[float, ...]
    best: tuple[float, ...]
    end: float

    def value(self, where: float) -> float | None:
        """Return the best up to `where`, also after the end; None before the first candidate."""
        index = bisect_right(self.at, where)
        return self.best[index - 1] if index else None


def best_so_far(trials: Sequence[TrialView], clock: Clock) -> Curve | None:
    """Return the curve of a search; None where its clock does not know, or where nothing competed."""
    steps: list[tuple[float, float]] = []
    end = 0.0
    for trial in trials:
        now = clock(trial)
        if now is None:
            return None
        end = max(end, now)
        if trial.competes and (not steps or trial.objective > steps[-1][1]):
            steps.append((end, trial.objective))
    if not steps:
        return None
    at, best = zip(*steps, strict=True)
    return Curve(at, best, end)


def mean_value(curves: Iterable[Curve], where: float) -> float | None:
    """Return the mean of several searches at `where`; None unless each has a candidate by then."""
    values = [curve.value(where) for curve in curves]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
