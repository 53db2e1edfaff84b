"""Pictures of a latency table: how true its predictions are, and the staircases of its layers."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from autoprune.latency_tables.table import ONE_WIDTH, LatencyTable
from autoprune.latency_tables.unit import Unit
from autoprune.service.reports.figures import Figure, colour, figure
from autoprune.service.reports.html import facts, section
from autoprune.service.reports.page import page

#: Layers whose staircases are drawn: those that take longest.
LAYERS = 6


def write_table_report(table: LatencyTable, path: Path) -> None:
    """Write the pictures of a table to `path` as one page that works offline (about 5 MB)."""
    path.write_text(render_table_report(table), encoding="utf-8")


def render_table_report(table: LatencyTable) -> str:
    """Return the pictures of a table as one self-contained HTML page."""
    figures = {"stairs": staircase_figure(table)}
    body = [f"<h1>Latency table of {escape(table.conditions.device)}</h1>"]
    body.append(f'<p class="lead">{len(table.entries):,} timed units.</p>')
    if table.calibrations:
        figures["truth"] = truth_figure(table)
        body.append(
            section(
                "Predicted against measured",
                "<p>Networks that were timed whole, each predicted by a line that was fitted without it. The band is "
                'the mean error that the table states.</p><div class="plot" id="truth"></div>',
            )
        )
    body.append(
        section(
            "Staircases",
            "<p>Time of the slowest layers by the channels that leave them, with all channels entering. Whiskers reach "
            'from the 10th to the 90th percentile.</p><div class="plot" id="stairs"></div>',
        )
    )
    provenance = {**table.conditions.to_dict(), **table.provenance, "sha256": table.sha256}
    body.append(section("Measured under", f"<dl>{facts(provenance)}</dl>"))
    return page(f"Latency table of {table.conditions.device}", "".join(body), figures)


def truth_figure(table: LatencyTable) -> Figure:
    """Predicted against measured milliseconds of whole networks, with the band of the mean error."""
    traces: list[Mapping[str, object]] = []
    most = max((max(point) for each in table.calibrations.values() for point in each.points), default=0.0) / 1e3
    error = max(each.error for each in table.calibrations.values())
    band = [0.0, 1.05 * most]
    corners = [*band, *reversed(band)]
    edges = [*(value * (1 + error) for value in band), *(value * (1 - error) for value in reversed(band))]
    traces.append(
        {
            "type": "scatter", "mode": "lines", "name": f"mean error {error:.1%}", "x": corners, "y": edges,
            "fill": "toself", "hoverinfo": "skip", "opacity": 0.35, "line": {"color": "--grid", "width": 0},
            "fillcolor": "--grid",
        }
    )  # fmt: skip
    for index, (key, calibration) in enumerate(sorted(table.calibrations.items())):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"network {key[:8]}, {calibration.error:.1%} off",
                "x": [predicted / 1e3 for predicted, _ in calibration.points],
                "y": [measured / 1e3 for _, measured in calibration.points],
                "hovertemplate": "predicted %{x:.3g} ms, measured %{y:.3g} ms",
                "marker": {"color": colour(index), "size": 9},
            }
        )
    return figure(
        traces,
        {"title": {"text": "predicted (ms)"}, "rangemode": "tozero"},
        {"title": {"text": "measured (ms)"}, "rangemode": "tozero"},
    )


def staircase_figure(table: LatencyTable) -> Figure:
    """Microseconds of the slowest layers against the channels that leave them, with all channels entering."""
    slowest = {shape: max(t.median_us for u, t in table.entries.items() if u.shape == shape) for shape in table.shapes}
    traces: list[Mapping[str, object]] = []
    for index, shape in enumerate(sorted(slowest, key=lambda each: -slowest[each])[:LAYERS]):
        units = _widest(table, shape)
        times = [table.entries[unit] for unit in units]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(str(shape).replace(" 0->0", "")),
                "x": [unit.c_out for unit in units],
                "y": [timing.median_us for timing in times],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [timing.p90_us - timing.median_us for timing in times],
                    "arrayminus": [timing.median_us - timing.p10_us for timing in times],
                    "thickness": 1,
                },
                "hovertemplate": "%{x} channels: %{y:.1f} us",
                "line": {"color": colour(index), "width": 2},
                "marker": {"color": colour(index), "size": 6},
            }
        )
    return figure(
        traces,
        {"title": {"text": "channels that leave"}, "rangemode": "tozero"},
        {"title": {"text": "time (us)"}, "rangemode": "tozero"},
    )


def _widest(table: LatencyTable, shape: Unit) -> list[Unit]:
    """Return the measured units of a shape with most channels entering, by the channels that leave."""
    units = [unit for unit in table.entries if unit.shape == shape]
    if shape.op not in ONE_WIDTH:
        most = max(unit.c_in for unit in units)
        units = [unit for unit in units if unit.c_in == most]
    return sorted(units, key=lambda unit: unit.c_out)
