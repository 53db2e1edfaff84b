"""The report's plots of an amc search: score by episode, and where along the network its winner keeps much or little.

Colours and escaping as in :mod:`autoprune.service.reports.figures`.
"""

from collections.abc import Mapping, Sequence
from html import escape

from autoprune.envs.rewards import REWARDS
from autoprune.service.reports.figures import Figure, colour, figure, group_axis
from autoprune.service.results.job_result import AmcView, JobResult, PolicyOutcome, TrialView
from autoprune.service.results.wording import metric

#: Episodes of the moving mean, which takes fewer at its start.
MOVING = 20


def episodes_figure(result: JobResult, outcome: PolicyOutcome, amc: AmcView) -> Figure:
    """Score or reward of every episode, its moving mean, the warm-up shaded, and the best of every other policy.

    The score where the reward is minus the error, which is the same on another scale; else the reward.
    """
    index = result.outcomes.index(outcome)
    unit = _suffix(amc)
    episodes = [trial for trial in outcome.trials if trial.number >= amc.first]
    numbers = list(range(1, len(episodes) + 1))
    values = [_value(trial, amc) for trial in episodes]
    traces: list[Mapping[str, object]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{escape(outcome.policy)}, episodes",
            "x": numbers,
            "y": values,
            "customdata": ["" if trial.competes else " on fewer images" for trial in episodes],
            "hovertemplate": f"episode %{{x}}: %{{y:.2f}}{unit}%{{customdata}}<extra></extra>",
            "marker": {"color": colour(index), "size": 6, "opacity": 0.35},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"mean of the last {MOVING}",
            "x": numbers,
            "y": _moving_mean(values),
            "hovertemplate": f"%{{y:.2f}}{unit}",
            "line": {"color": colour(index), "width": 3},
        },
    ]
    for number, other in enumerate(result.outcomes):
        best = max((_value(trial, amc) for trial in other.trials if trial.competes), default=None)
        if other is not outcome and best is not None:
            traces.append(_level(f"best of {escape(other.policy)}", best, len(episodes), colour(number), unit))
    if amc.reward == "-error":
        y = {"title": {"text": f"{metric(result).label}, search split (%)"}, "ticksuffix": "%"}
    else:
        y = {"title": {"text": f"reward {escape(amc.reward)}"}}
    plot = figure(traces, {"title": {"text": "episode"}, "rangemode": "tozero"}, y)
    if amc.warmup:
        _shade(plot, 0.5, min(amc.warmup, len(episodes)) + 0.5, "warm-up")
    return plot


def density_figure(result: JobResult, outcome: PolicyOutcome) -> Figure:
    """Share of units that the winner keeps along the network; peaks and crests with their kernels (AMC, fig. 3)."""
    names = result.decision_groups
    groups = {group.name: group for group in result.groups}
    kept = [100 * outcome.kept[name] / groups[name].units for name in names]
    kernels = [kernel_name(groups[name].kernel) for name in names]
    told = [
        [escape(name), outcome.kept[name], groups[name].units, kernel]
        for name, kernel in zip(names, kernels, strict=True)
    ]
    hover = "%{customdata[0]}, %{customdata[3]}<br>%{customdata[1]} of %{customdata[2]} channels (%{y:.0f}%)"
    shade = colour(result.outcomes.index(outcome))
    traces: list[Mapping[str, object]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(outcome.policy),
            "x": list(range(1, len(names) + 1)),
            "y": kept,
            "customdata": told,
            "hovertemplate": hover,
            "line": {"color": shade, "width": 2},
            "marker": {"color": shade, "size": 5},
        }
    ]
    peaks, crests = turns(kept)
    for name, places, symbol, side in (
        ("peaks", peaks, "triangle-up", "top center"),
        ("crests", crests, "triangle-down", "bottom center"),
    ):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if len(places) <= 40 else "markers",
                "name": name,
                "x": [place + 1 for place in places],
                "y": [kept[place] for place in places],
                "text": [kernels[place] for place in places],
                "textposition": side,
                "customdata": [told[place] for place in places],
                "hovertemplate": hover,
                "marker": {"color": "--text", "size": 11, "symbol": symbol},
            }
        )
    y = {"title": {"text": "channels kept (%)"}, "range": [-8, 112], "ticksuffix": "%"}
    return figure(traces, group_axis(names), y)


def turns(values: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the places of the local maxima and minima of `values`, each in the middle of its plateau; no ends."""
    plateaus: list[tuple[int, int]] = []
    for place, value in enumerate(values):
        if plateaus and values[plateaus[-1][0]] == value:
            plateaus[-1] = (plateaus[-1][0], place)
        else:
            plateaus.append((place, place))
    peaks: list[int] = []
    crests: list[int] = []
    for before, (start, end), after in zip(plateaus, plateaus[1:], plateaus[2:], strict=False):
        left, here, right = values[before[0]], values[start], values[after[0]]
        if (left < here) == (right < here):
            (peaks if left < here else crests).append((start + end) // 2)
    return peaks, crests


def kernels_in_words(result: JobResult, outcome: PolicyOutcome) -> str:
    """Say how many peaks and crests have which kernel."""
    groups = {group.name: group for group in result.groups}
    names = result.decision_groups
    said = []
    for kind, places in zip(
        ("peaks", "crests"), turns([outcome.kept[n] / groups[n].units for n in names]), strict=True
    ):
        kernels = [kernel_name(groups[names[place]].kernel) for place in places]
        counts = ", ".join(f"{kernels.count(kernel)} of {kernel}" for kernel in sorted(set(kernels)))
        said.append(f"{len(places)} {kind}" + (f" ({counts})" if counts else ""))
    return " and ".join(said)


def kernel_name(kernel: Sequence[int] | None) -> str:
    """Write a kernel as ``3x3``; ``linear`` where there is none."""
    return "linear" if kernel is None else "x".join(str(size) for size in kernel)


def _value(trial: TrialView, amc: AmcView) -> float:
    """Return a trial's score in percent, or its reward where that is not minus the error."""
    if amc.reward == "-error":
        return 100 * trial.objective
    return REWARDS[amc.reward](trial.objective, trial.cost)


def _suffix(amc: AmcView) -> str:
    """Return the unit of what is drawn."""
    return "%" if amc.reward == "-error" else ""


def _moving_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and up to MOVING - 1 before it."""
    windows = [values[max(0, end - MOVING) : end] for end in range(1, len(values) + 1)]
    return [sum(window) / len(window) for window in windows]


def _level(name: str, value: float, last: int, shade: str, unit: str) -> Mapping[str, object]:
    """A horizontal line across all episodes."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [0, last],
        "y": [value, value],
        "hovertemplate": f"%{{y:.2f}}{unit}",
        "line": {"color": shade, "width": 2, "dash": "dash"},
    }


def _shade(plot: Figure, start: float, end: float, text: str) -> None:
    """Shade a range of a figure that was just made, and name it."""
    layout = plot["layout"]
    assert isinstance(layout, dict)
    layout["shapes"] = [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
         "fillcolor": "--grid", "opacity": 0.5, "line": {"width": 0}, "layer": "below"}
    ]  # fmt: skip
    layout["annotations"] = [
        {"x": start, "xref": "x", "y": 0, "yref": "paper", "xanchor": "left", "yanchor": "bottom", "xshift": 5,
         "text": text, "showarrow": False, "font": {"color": "--muted"}}
    ]  # fmt: skip
