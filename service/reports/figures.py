"""The report's plots, as plotly figures in plain JSON-ready data.

Colours are names of CSS variables (``"--p0"``): the page's script puts in the values of the reader's colour scheme.
Plotly reads a little HTML in texts, so every text that came from outside is escaped here.
"""

from collections.abc import Mapping, Sequence
from html import escape

from autoprune.service.results.curves import best_so_far, evaluations
from autoprune.service.results.job_result import TrialView
from autoprune.service.results.searched import Searched, SearchedPolicy
from autoprune.service.results.wording import QUANTITY_LABELS, metric

Figure = dict[str, object]

#: Number of policy colours in the style sheet; more policies start over with other dashes and symbols.
N_COLOURS = 6
_DASHES = ("solid", "dash", "dot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def kept_figure(result: Searched) -> Figure:
    """Share of units each policy keeps, per decision group in network order (AMC, fig. 3: "density per layer")."""
    sizes = {group.name: group.units for group in result.groups}
    names = result.decision_groups
    traces: list[Mapping[str, object]] = []
    for index, outcome in enumerate(result.outcomes):
        if not outcome.kept:  # it has no candidate yet
            continue
        kept = [outcome.kept[name] for name in names]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(outcome.policy),
                "x": list(range(1, len(names) + 1)),
                "y": [100 * count / sizes[name] for count, name in zip(kept, names, strict=True)],
                "customdata": [[escape(name), count, sizes[name]] for count, name in zip(kept, names, strict=True)],
                "hovertemplate": "%{customdata[0]}<br>%{customdata[1]} of %{customdata[2]} channels (%{y:.0f}%)",
                "line": line(index),
                "marker": marker(index, 7),
            }
        )
    y = {"title": {"text": "channels kept (%)"}, "range": [0, 104], "ticksuffix": "%"}
    return figure(traces, group_axis(names), y)


def trials_figure(result: Searched, quantity: str) -> Figure:
    """Score of every candidate against its cost in `quantity`; probes faint, budget as a line, unpruned as a point."""
    full = result.cost[quantity]
    score = metric(result)
    traces: list[Mapping[str, object]] = []
    for index, outcome in enumerate(result.outcomes):
        groups = {
            False: [t for t in outcome.trials if t.competes],
            True: [t for t in outcome.trials if not t.competes],
        }
        for probe, trials in groups.items():
            if trials:
                traces.append(_trial_trace(outcome, trials, quantity, full, index, probe=probe))
        if outcome.front:
            traces.append(_front_trace(outcome, quantity, full, index))
    unpruned = score.of(result.search)
    if unpruned is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "unpruned",
                "x": [100.0],
                "y": [100 * unpruned],
                "hovertemplate": f"unpruned network: {100 * unpruned:.1f}%<extra></extra>",
                "marker": {"color": "--text", "size": 13, "symbol": "star"},
            }
        )
    label = QUANTITY_LABELS.get(quantity, quantity)
    plot = figure(
        traces,
        {"title": {"text": f"{label}, % of the unpruned network"}, "range": [0, 106], "ticksuffix": "%"},
        {"title": {"text": f"{score.label}, search split (%)"}, "ticksuffix": "%"},
    )
    limit = result.limits.get(quantity)
    if limit is not None:
        budget_line(plot, 100 * limit / full)
    return plot


def progress_figure(result: Searched) -> Figure:
    """Best score so far within the budget, against the number of evaluations; probes count but cannot win."""
    traces: list[Mapping[str, object]] = []
    curves = [best_so_far(outcome.trials, evaluations) for outcome in result.outcomes]
    longest = max((curve.end for curve in curves if curve is not None), default=0)
    for index, (outcome, curve) in enumerate(zip(result.outcomes, curves, strict=True)):
        if curve is None:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(outcome.policy),
                "x": [*curve.at, longest],
                "y": [100 * best for best in (*curve.best, curve.best[-1])],
                "hovertemplate": "after %{x} evaluations: %{y:.1f}%",
                "line": {**line(index), "shape": "hv"},
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "showlegend": False,
                "hoverinfo": "skip",
                "x": [curve.at[0]],
                "y": [100 * curve.best[0]],
                "marker": marker(index, 8),
            }
        )
    return figure(
        traces,
        {"title": {"text": "evaluations"}, "rangemode": "tozero"},
        {"title": {"text": f"best {metric(result).label} so far (%)"}, "ticksuffix": "%"},
    )


def _trial_trace(
    outcome: SearchedPolicy, trials: list[TrialView], quantity: str, full: int, index: int, *, probe: bool
) -> Mapping[str, object]:
    """Points of one policy's candidates, or of its probes."""
    name = escape(outcome.policy)
    shown = {**marker(index, 7), "opacity": 0.4} if probe else marker(index, 9)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{name}, probes" if probe else name,
        "x": [100 * trial.cost[quantity] / full for trial in trials],
        "y": [100 * trial.objective for trial in trials],
        "customdata": [trial.number for trial in trials],
        "hovertemplate": "trial %{customdata}: %{y:.1f}% at %{x:.1f}% cost",
        "marker": shown,
    }


def _front_trace(outcome: SearchedPolicy, quantity: str, full: int, index: int) -> Mapping[str, object]:
    """A policy's plans of several costs, as a line."""
    trials = {trial.number: trial for trial in outcome.trials}
    steps = [trials[number] for number in outcome.front]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{escape(outcome.policy)}, front",
        "x": [100 * step.cost[quantity] / full for step in steps],
        "y": [100 * step.objective for step in steps],
        "hoverinfo": "skip",
        "line": {"color": colour(index), "width": 2},
    }


def budget_line(plot: Figure, x: float) -> None:
    """Add the budget to a figure that was just made."""
    layout = plot["layout"]
    assert isinstance(layout, dict)
    layout["shapes"] = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
         "line": {"color": "--muted", "width": 2, "dash": "dash"}}
    ]  # fmt: skip
    layout["annotations"] = [
        {"x": x, "xref": "x", "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top", "xshift": -5,
         "text": f"budget {x:.0f}%", "showarrow": False, "font": {"color": "--muted"}}
    ]  # fmt: skip


def figure(traces: list[Mapping[str, object]], x: Mapping[str, object], y: Mapping[str, object]) -> Figure:
    """Put traces on the page's common axes: no box, faint grid, legend above."""
    axis = {"gridcolor": "--grid", "zeroline": False, "linecolor": "--grid", "automargin": True}
    return {
        "data": [dict(trace) for trace in traces],
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": "--text", "family": "system-ui, sans-serif", "size": 13},
            "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            "hoverlabel": {"bgcolor": "--card", "bordercolor": "--grid", "font": {"color": "--text"}},
            "showlegend": True,
            "xaxis": {**axis, **x},
            "yaxis": {**axis, **y},
        },
    }


def colour(index: int) -> str:
    """Return the colour of the policy at `index`."""
    return f"--p{index % N_COLOURS}"


def line(index: int) -> dict[str, object]:
    """Return the line of the policy at `index`."""
    return {"color": colour(index), "width": 2, "dash": _DASHES[index // N_COLOURS % 3]}


def marker(index: int, size: int) -> dict[str, object]:
    """Return the marker of the policy at `index`, `size` pixels large."""
    return {"color": colour(index), "size": size, "symbol": _SYMBOLS[index % len(_SYMBOLS)]}


def group_axis(names: Sequence[str]) -> Figure:
    """Return the x axis of plots along the network; groups are at 1, 2, ..., and named where they are few."""
    axis: Figure = {"title": {"text": "channel group, in network order"}}
    if len(names) <= 32:
        axis |= {"tickvals": list(range(1, len(names) + 1)), "ticktext": _group_labels(names)}
    return axis


def _group_labels(names: Sequence[str]) -> list[str]:
    """Return short, distinct labels: the end of a long dotted name."""
    short = [name if len(name) <= 18 else "…" + name[-17:] for name in names]
    return [escape(text) for text in short]
