"""Plots of a study; colours and escaping as in :mod:`autoprune.service.reports.figures`."""

from collections.abc import Mapping
from html import escape
from statistics import mean

from autoprune.service.reports.figures import Figure, colour, figure, group_axis, line, marker
from autoprune.service.studies.study_result import OracleView, StudyResult


def curves_figure(result: StudyResult, recovery: str) -> Figure:
    """Accuracy (or agreement) against the share of channels removed, a line per group pruned alone."""
    traces: list[Mapping[str, object]] = []
    curves = [curve for curve in result.curves if curve.recovery == recovery]
    for index, curve in enumerate(curves):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(f"{curve.group} ({curve.channels})"),
                "x": [100 * share for share in curve.removed],
                "y": [100 * value for value in curve.quality],
                "customdata": curve.kept,
                "hovertemplate": "%{x:.0f}% removed, %{customdata} kept: %{y:.1f}%",
                "line": line(index),
                "marker": marker(index, 6),
            }
        )
    return figure(
        traces,
        {"title": {"text": "channels of the group removed (%)"}, "range": [0, 101], "ticksuffix": "%"},
        {"title": {"text": f"{quality_name(result)} (%)"}, "ticksuffix": "%", "rangemode": "tozero"},
    )


def correlations_figure(oracle: OracleView) -> Figure:
    """Spearman's rho of every criterion with the oracle, over all layers, and in every layer as points."""
    names = [each.criterion for each in reversed(oracle.criteria)]
    layers = [
        (found.criterion, group, each.spearman)
        for found in oracle.criteria
        for group, each in found.groups.items()
        if each.spearman is not None
    ]
    together = {found.criterion: found.together.spearman for found in oracle.criteria}
    traces: list[Mapping[str, object]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": "over all layers",
            "x": [together[name] for name in names],
            "y": names,
            "hovertemplate": "%{y}: %{x:.3f}",
            "marker": {"color": colour(0)},
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "in one layer",
            "x": [value for _, _, value in layers],
            "y": [name for name, _, _ in layers],
            "customdata": [escape(group) for _, group, _ in layers],
            "hovertemplate": "%{y} in %{customdata}: %{x:.3f}",
            "marker": {**marker(1, 7), "opacity": 0.7},
        },
    ]
    return figure(
        traces,
        {"title": {"text": "Spearman's rank correlation with the oracle"}, "range": [-1.05, 1.05]},
        {"type": "category", "tickfont": {"size": 10}, "dtick": 1},
    )


def changes_figure(oracle: OracleView) -> Figure:
    """Loss change without each channel that was left out, by group."""
    names = list(oracle.changes)
    points = [
        (position, change, channel)
        for position, name in enumerate(names, start=1)
        for change, channel in zip(oracle.changes[name], oracle.channels[name], strict=True)
    ]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "one channel left out",
        "x": [position for position, _, _ in points],
        "y": [change for _, change, _ in points],
        "customdata": [f"{escape(names[position - 1])}, channel {channel}" for position, _, channel in points],
        "hovertemplate": "%{customdata}: %{y:.3g}<extra></extra>",
        "marker": {**marker(0, 6), "opacity": 0.6},
    }
    return figure([trace], group_axis(names), {"title": {"text": "the loss gains (nats)"}})


def schedules_figure(result: StudyResult) -> Figure:
    """Accuracy after each cut and its training against the MACs left: means over the seeds, every seed faint."""
    traces: list[Mapping[str, object]] = []
    for index, name in enumerate(dict.fromkeys(run.schedule for run in result.runs)):
        runs = [run for run in result.runs if run.schedule == name]
        columns = list(zip(*(zip(run.macs, run.after, strict=True) for run in runs), strict=True))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [100.0, *(100 * mean(macs for macs, _ in column) for column in columns)],
                "y": [100 * result.quality, *(100 * mean(after for _, after in column) for column in columns)],
                "hovertemplate": "%{x:.0f}% of the MACs: %{y:.1f}%",
                "line": line(index),
                "marker": marker(index, 8),
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{name}, each seed",
                "x": [100 * macs for run in runs for macs in run.macs],
                "y": [100 * after for run in runs for after in run.after],
                "customdata": [run.seed for run in runs for _ in run.macs],
                "hovertemplate": "seed %{customdata}: %{y:.1f}%",
                "marker": {**marker(index, 5), "opacity": 0.5},
            }
        )
    return figure(
        traces,
        {"title": {"text": "MACs left (%)"}, "ticksuffix": "%", "autorange": "reversed"},
        {"title": {"text": "accuracy, search split (%)"}, "ticksuffix": "%"},
    )


def quality_name(result: StudyResult) -> str:
    """Name what networks are scored by."""
    return "accuracy, search split" if result.labels else "agreement with the whole network"
