"""The report of a comparison: one HTML page that needs no network, no server and no other file."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.comparisons.figures import best_figure, front_figure
from autoprune.service.comparisons.sections import (
    milestones_section,
    pairs_section,
    policies_section,
    proposals_section,
    runs_section,
    verdict_section,
)
from autoprune.service.reports.figures import kept_figure
from autoprune.service.reports.job_report import Plot, amc_plots
from autoprune.service.reports.page import page
from autoprune.service.reports.sections import (
    artifacts_section,
    cards,
    certificate_section,
    groups_section,
    plots_section,
    warnings_section,
)
from autoprune.service.results.curves import evaluations, seconds
from autoprune.service.results.wording import QUANTITY_LABELS, best_outcome, duration, metric, model_name


def write_report(result: ComparisonResult, path: Path) -> None:
    """Write the report of `result` to `path` (about 5 MB, nearly all of it plotly.js)."""
    path.write_text(render_report(result), encoding="utf-8")


def render_report(result: ComparisonResult) -> str:
    """Return the report of `result` as one self-contained HTML page, plotly.js included.

    What it says of single networks (cards, certificate, files) it says as the report of a job does.
    """
    delivered = result.delivered
    plots = figures(result)
    body = "".join(
        (
            _head(result),
            found_sections(result, plots),
            artifacts_section(delivered),
            f"<footer>Made by autoprune. Fingerprint of the original model: "
            f"<code>{escape(delivered.model_sha256)}</code></footer>",
        )
    )
    title = f"{model_name(delivered)} pruned to {delivered.budget}: policies compared"
    return page(title, body, {element: figure for element, _, _, figure in plots})


def found_sections(result: ComparisonResult, plots: Sequence[Plot]) -> str:
    """Return all that a comparison found as HTML, with elements for its `plots`."""
    delivered = result.delivered
    return "".join(
        (
            cards(delivered),
            verdict_section(result),
            warnings_section(delivered.warnings),
            policies_section(result),
            plots_section([plot[:3] for plot in plots]),
            milestones_section(result),
            pairs_section(result),
            proposals_section(result),
            runs_section(result),
            groups_section(delivered),
            certificate_section(best_outcome(delivered)),
        )
    )


def figures(result: ComparisonResult) -> list[Plot]:
    """Return the plots."""
    delivered = result.delivered
    score = metric(delivered).label
    band = "Lines are means over the seeds, bands go from the worst seed to the best."
    plots = [
        (
            "by-evaluations",
            "Best so far, by evaluations",
            f"Best candidate within the budget on the search images. {band}",
            best_figure(result, evaluations, "evaluations"),
        )
    ]
    if result.by_seconds:
        plots.append(
            (
                "by-seconds",
                "Best so far, by time",
                "The same searches against the time that they would take alone, in one process: the policy's own work, "
                f"and every evaluation with the seconds that it took when it was computed. {band}",
                best_figure(result, seconds, "seconds"),
            )
        )
    for quantity in result.fronts:
        label = QUANTITY_LABELS.get(quantity, quantity)
        plots.append(
            (
                f"front-{len(plots)}",
                f"{score.capitalize()} against {label}",
                "Every candidate of every seed that could win, on the search images before refit and fine-tuning; the "
                "line joins those that no other beats in both (the Pareto front).",
                front_figure(result, quantity),
            )
        )
    plots.append(
        (
            "kept",
            "Density per layer",
            "Share of channels that the delivered network of each policy keeps in every group, in network order.",
            kept_figure(delivered),
        )
    )
    return plots + [plot for outcome in delivered.outcomes for plot in amc_plots(delivered, outcome)]


def _head(result: ComparisonResult) -> str:
    """Title and one line on what was done."""
    delivered = result.delivered
    shape = "x".join(str(size) for size in delivered.input_shape)
    seeds = "1 seed" if len(result.seeds) == 1 else f"{len(result.seeds)} seeds"
    return (
        f"<h1>{escape(model_name(delivered))} pruned to {escape(delivered.budget)}: policies compared</h1>"
        f'<p class="lead">{len(result.policies)} policies over {seeds} on {escape(delivered.dataset)}, input {shape}, '
        f"{result.evaluations:,} evaluations each, images dealt with seed {delivered.seed}, "
        f"{escape(duration(delivered.seconds))} in all.</p>"
    )
