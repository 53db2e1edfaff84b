"""The report of a study: one HTML page that needs no network, no server and no other file."""

from html import escape
from pathlib import Path, PurePath

from autoprune.service.reports.html import facts, link, section, table
from autoprune.service.reports.job_report import Plot
from autoprune.service.reports.page import page
from autoprune.service.reports.sections import plots_section
from autoprune.service.results.wording import duration
from autoprune.service.studies.figures import (
    changes_figure,
    correlations_figure,
    curves_figure,
    quality_name,
    schedules_figure,
)
from autoprune.service.studies.study_result import FILE, TABLE, OracleView, StudyResult
from autoprune.service.studies.words import RECOVERIES, TITLES, final_rows, quality_at, verdict

_NOTES = {
    "sensitivity": "Each group of channels is pruned alone, all others stay whole: the higher a line stays, the more "
    "of that group can go.",
    "oracle": "Every channel is left out alone, with nothing recalibrated, reconstructed or trained, as in Molchanov "
    "et al. 2017 (1611.06440). Criteria are ranked against the absolute change of the loss.",
    "schedule": "Both schedules end at the same share of the MACs after the same training; one cuts once and then "
    "trains, the other cuts several times, ranks anew each time, and has half of its training after the last cut.",
}


def write_report(result: StudyResult, path: Path) -> None:
    """Write the report of `result` to `path` (about 5 MB, nearly all of it plotly.js)."""
    path.write_text(render_report(result), encoding="utf-8")


def render_report(result: StudyResult) -> str:
    """Return the report of `result` as one self-contained HTML page, plotly.js included."""
    name = PurePath(result.model).name
    title = f"{TITLES[result.study]} of {name}"
    plots = _plots(result)
    lead = (
        f"On {PurePath(result.dataset).name}, {result.fit_images:,} fit and {result.search_images:,} search images, "
        f"seed {result.seed}, {duration(result.seconds)}. {_NOTES[result.study]}"
    )
    body = [f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>']
    body += [f"<p>{escape(text)}</p>" for text in verdict(result)]
    body.append(plots_section([plot[:3] for plot in plots]))
    body.append(_tables(result))
    body.append(section("Settings", f"<dl>{facts(result.settings)}</dl>"))
    body.append(section("Files", f"<p>{link(TABLE)}, {link(FILE)}</p>"))
    body.append(
        f"<footer>Made by autoprune. Fingerprint of the model: <code>{escape(result.model_sha256)}</code></footer>"
    )
    return page(title, "".join(body), {element: figure for element, _, _, figure in plots})


def _plots(result: StudyResult) -> list[Plot]:
    """Return the plots."""
    if result.study == "sensitivity":
        recoveries = dict.fromkeys(curve.recovery for curve in result.curves)
        text = f"{quality_name(result).capitalize()}, by the share of one group's channels that goes."
        return [
            (f"curves-{name}", RECOVERIES[name].capitalize(), text, curves_figure(result, name)) for name in recoveries
        ]
    if result.oracle is not None:
        return [
            (
                "correlations",
                "Criteria against the oracle",
                "Spearman's rank correlation with the absolute loss change: over the channels of all groups at once, "
                "and within each group.",
                correlations_figure(result.oracle),
            ),
            (
                "changes",
                "What single channels are worth",
                "What the loss gains when one channel alone is left out; below 0 the network is better without it.",
                changes_figure(result.oracle),
            ),
        ]
    text = "After every cut and the training behind it, down to the share of the MACs asked for."
    return [("schedules", "One shot against iterative", text, schedules_figure(result))]


def _tables(result: StudyResult) -> str:
    """The figures as tables: the text alternative of the plots."""
    if result.oracle is not None:
        return _correlations_table(result.oracle)
    if result.study == "schedule":
        head, rows = final_rows(result)
        return section("In the end", table(head, rows, "Accuracy on the search split, means over the seeds."))
    return _curves_table(result)


def _curves_table(result: StudyResult) -> str:
    """Every curve as a row: the quality at the width nearest to each share."""
    steps = int(str(result.settings["steps"]))
    shares = [step / (steps + 1) for step in range(steps + 1)]
    head = ["group", "after the cut", *(f"{share:.0%}" for share in shares)]
    rows = []
    for curve in result.curves:
        cells = [quality_at(curve, share, 0.5 / (steps + 1)) for share in shares]
        rows.append([escape(curve.group), escape(RECOVERIES[curve.recovery]), *cells])
    return section("Curves", table(head, rows, f"{quality_name(result).capitalize()}, by the share that goes."))


def _correlations_table(oracle: OracleView) -> str:
    """Every criterion against the oracle."""
    head = ["criterion", "Spearman", "Kendall", "Spearman, normalised", "lowest in a layer"]
    rows = []
    for each in oracle.criteria:
        layers = [found.spearman for found in each.groups.values() if found.spearman is not None]
        figures = (each.together.spearman, each.together.kendall, each.normalised.spearman, min(layers, default=None))
        rows.append([escape(each.criterion), *("-" if value is None else f"{value:.3f}" for value in figures)])
    count = sum(map(len, oracle.changes.values()))
    note = (
        f"Rank correlation with the absolute loss change of {count:,} channels, on {oracle.images:,} fit images; the "
        f"loss of the whole network there is {oracle.loss:.4g}. Normalised: scores divided by their l2 norm per group."
    )
    left = "".join(f"<p>{escape(name)} is left out: {escape(why)}</p>" for name, why in oracle.left_out.items())
    return section("Correlations", table(head, rows, note) + left)
