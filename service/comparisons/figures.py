"""Plots of a comparison; colours and escaping as in :mod:`autoprune.service.reports.figures`."""

from collections.abc import Mapping, Sequence
from html import escape

from autoprune.service.comparisons.comparison_result import ComparisonResult, RunView
from autoprune.service.comparisons.summary import by_policy
from autoprune.service.reports.figures import Figure, budget_line, colour, figure, line, marker
from autoprune.service.results.curves import Clock, Curve, best_so_far, mean_value
from autoprune.service.results.wording import QUANTITY_LABELS, metric

_Trace = Mapping[str, object]


def best_figure(result: ComparisonResult, clock: Clock, unit: str) -> Figure:
    """Best score so far of every policy, the mean over its seeds in a band from the worst to the best of them."""
    traces: list[_Trace] = []
    policies = {
        policy: [curve for run in runs if (curve := best_so_far(run.trials, clock)) is not None]
        for policy, runs in by_policy(result.runs).items()
    }
    longest = max((curve.end for curves in policies.values() for curve in curves), default=0.0)
    for index, (policy, curves) in enumerate(policies.items()):
        at = _steps(curves, longest)
        if at:
            traces += _band(curves, at, index)
            means = [100 * mean for point in at if (mean := mean_value(curves, point)) is not None]
            hover = f"{escape(policy)} after %{{x:.4g}} {unit}: %{{y:.1f}}%<extra></extra>"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escape(policy),
                    "x": at,
                    "y": means,
                    "hovertemplate": hover,
                    "line": {**line(index), "shape": "hv"},
                }
            )
    return figure(
        traces,
        {"title": {"text": unit}, "rangemode": "tozero"},
        {"title": {"text": f"best {metric(result.delivered).label} so far (%)"}, "ticksuffix": "%"},
    )


def front_figure(result: ComparisonResult, quantity: str) -> Figure:
    """Score of every candidate that could win against its cost, the Pareto front as a line, and the budget."""
    full = result.delivered.cost[quantity]
    traces = [
        _candidates(policy, runs, quantity, full, index)
        for index, (policy, runs) in enumerate(by_policy(result.runs).items())
    ]
    front = result.fronts[quantity]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "Pareto front",
            "x": [100 * point.cost / full for point in front],
            "y": [100 * point.objective for point in front],
            "customdata": [f"{escape(point.policy)}{_with_seed(point.seed)}, trial {point.trial}" for point in front],
            "hovertemplate": "%{customdata}: %{y:.1f}% at %{x:.1f}% cost<extra></extra>",
            "line": {"color": "--text", "width": 2, "shape": "hv"},
            "marker": {"color": "--text", "size": 6},
        }
    )
    label = QUANTITY_LABELS.get(quantity, quantity)
    plot = figure(
        traces,
        {"title": {"text": f"{label}, % of the unpruned network"}, "ticksuffix": "%"},
        {"title": {"text": f"{metric(result.delivered).label}, search split (%)"}, "ticksuffix": "%"},
    )
    budget_line(plot, 100 * result.delivered.limits[quantity] / full)
    return plot


def _candidates(policy: str, runs: Sequence[RunView], quantity: str, full: int, index: int) -> _Trace:
    """Points of all seeds of one policy."""
    found = [(run, trial) for run in runs for trial in run.trials if trial.competes]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(policy),
        "x": [100 * trial.cost[quantity] / full for _, trial in found],
        "y": [100 * trial.objective for _, trial in found],
        "customdata": [f"trial {trial.number}{_with_seed(run.seed)}" for run, trial in found],
        "hovertemplate": "%{customdata}: %{y:.1f}% at %{x:.1f}% cost",
        "marker": {**marker(index, 7), "opacity": 0.6},
    }


def _steps(curves: Sequence[Curve], longest: float) -> list[float]:
    """Return where the mean of several curves may rise, from where each has a candidate, and where the plot ends."""
    if not curves:
        return []
    first = max(curve.at[0] for curve in curves)
    return [*sorted({point for curve in curves for point in (first, *curve.at) if point >= first}), longest]


def _band(curves: Sequence[Curve], at: Sequence[float], index: int) -> list[_Trace]:
    """The area from the worst to the best of several curves; nothing for one alone."""
    if len(curves) < 2:
        return []
    common = {
        "type": "scatter",
        "mode": "lines",
        "x": list(at),
        "hoverinfo": "skip",
        "showlegend": False,
        "opacity": 0.35,
        "line": {"color": colour(index), "width": 1, "shape": "hv", "dash": "dot"},
    }
    values = [[value for curve in curves if (value := curve.value(point)) is not None] for point in at]
    low, high = ({**common, "y": [100 * end(each) for each in values]} for end in (min, max))
    return [low, {**high, "fill": "tonexty"}]


def _with_seed(seed: int | None) -> str:
    """Name the seed of a run that has one."""
    return "" if seed is None else f", seed {seed}"
