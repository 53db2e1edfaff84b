"""What all runs of a comparison come to: policies over seeds, pairs of policies, who leads when, and the front."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from autoprune.service.comparisons.comparison_result import (
    FrontPoint,
    IntervalView,
    MilestoneView,
    PairView,
    PolicyView,
    ProposalsView,
    RunView,
)
from autoprune.service.comparisons.statistics import interval, mcnemar, paired_t, wilcoxon
from autoprune.service.results.curves import Clock, Curve, best_so_far, mean_value
from autoprune.service.results.job_result import ScoresView
from autoprune.service.results.wording import Metric


def by_policy(runs: Iterable[RunView]) -> dict[str, list[RunView]]:
    """Return the runs of every policy, in the order of the first one of each."""
    found: dict[str, list[RunView]] = {}
    for run in runs:
        found.setdefault(run.policy, []).append(run)
    return found


def policy_view(policy: str, runs: Sequence[RunView], measure: Metric, proposals: ProposalsView) -> PolicyView:
    """Summarise one policy over its runs."""
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return PolicyView(
        policy=policy,
        seeds=[run.seed for run in runs if run.seed is not None],
        search=_interval([value(measure, run.search) for run in runs]),
        search_final=_interval([value(measure, run.search_final) for run in runs]),
        report_pruned=_interval([value(measure, run.report_pruned) for run in runs]),
        report=_interval([value(measure, run.report) for run in runs]),
        trials=fmean(len(run.trials) for run in runs),
        seconds=_interval(seconds) if len(seconds) == len(runs) else None,
        proposals=proposals,
    )


def pair_views(runs: Sequence[RunView], measure: Metric, right: Mapping[str, NDArray[np.bool_]]) -> list[PairView]:
    """Hold every policy against every one before it, on the report split.

    Args:
        runs: All runs.
        measure: The figure they are compared by.
        right: Which report images the delivered network of each policy gets right, ``(n,)``.

    """
    policies = by_policy(runs)
    pairs = []
    for index, first in enumerate(policies):
        for second in list(policies)[:index]:
            differences = _differences(policies[first], policies[second], measure)
            only_first, only_second, p = mcnemar(right[first], right[second])
            if differences:
                pairs.append(
                    PairView(
                        first=first,
                        second=second,
                        difference=_interval(differences),
                        t_p=paired_t(differences),
                        wilcoxon_p=wilcoxon(differences),
                        only_first=only_first,
                        only_second=only_second,
                        mcnemar_p=p,
                    )
                )
    return pairs


def milestones(runs: Sequence[RunView], clock: Clock, *, at: Iterable[float] = ()) -> list[MilestoneView]:
    """Say who leads when the searches of a policy end, in the mean over its seeds, and at other points.

    Nothing where a clock does not know.
    """
    curves: dict[str, list[Curve]] = {}
    for policy, own in by_policy(runs).items():
        known = [curve for run in own if (curve := best_so_far(run.trials, clock)) is not None]
        if len(known) < len(own):
            return []
        curves[policy] = known
    ends: dict[float, list[str]] = {point: [] for point in at}
    for policy, known in curves.items():
        ends.setdefault(fmean(curve.end for curve in known), []).append(policy)
    views = []
    for point in sorted(ends):
        best = {policy: mean_value(known, point) for policy, known in curves.items()}
        highest = max((mean for mean in best.values() if mean is not None), default=None)
        leaders = [
            policy
            for policy, mean in best.items()
            if mean is not None and highest is not None and math.isclose(mean, highest, abs_tol=1e-12)
        ]
        views.append(MilestoneView(at=point, ends=ends[point], best=best, leaders=leaders))
    return views


def front(runs: Sequence[RunView], quantity: str) -> list[FrontPoint]:
    """Return the trials within the budget that no other one beats in cost and score: cost and score rise together."""
    points = [
        FrontPoint(
            policy=run.policy,
            seed=run.seed,
            trial=trial.number,
            cost=trial.cost[quantity],
            objective=trial.objective,
        )
        for run in runs
        for trial in run.trials
        if trial.competes
    ]
    best: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.objective)):
        if not best or point.objective > best[-1].objective:
            best.append(point)
    return best


def value(measure: Metric, scores: ScoresView) -> float:
    """Return the figure that networks are compared by."""
    found = measure.of(scores)
    assert found is not None, "all networks of a comparison are scored alike"
    return found


def _differences(first: Sequence[RunView], second: Sequence[RunView], measure: Metric) -> list[float]:
    """Return first less second on the report split, by seed; a policy without seeds is the same for all of them."""
    scores = [{run.seed: value(measure, run.report) for run in runs} for runs in (first, second)]
    seeds = sorted({seed for each in scores for seed in each if seed is not None})
    if not seeds:
        return [scores[0][None] - scores[1][None]]
    one, other = ({seed: each.get(seed, each.get(None)) for seed in seeds} for each in scores)
    return [a - b for seed in seeds if (a := one[seed]) is not None and (b := other[seed]) is not None]


def _interval(values: Sequence[float]) -> IntervalView:
    """Return the JSON form of an interval."""
    found = interval(values)
    return IntervalView(mean=found.mean, low=found.low, high=found.high, n=found.n)
