"""The report of a finished job: one HTML page that needs no network, no server and no other file."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from autoprune.service.reports.amc_figures import density_figure, episodes_figure, kernels_in_words
from autoprune.service.reports.figures import Figure, kept_figure, progress_figure, trials_figure
from autoprune.service.reports.page import page
from autoprune.service.reports.sections import (
    artifacts_section,
    cards,
    certificate_section,
    fronts_section,
    groups_section,
    plots_section,
    policies_section,
    scores_section,
    verdict_section,
    warnings_section,
)
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.results.searched import Searched
from autoprune.service.results.wording import QUANTITY_LABELS, best_outcome, duration, metric, model_name

#: One plot: element id, heading, explanation, figure.
Plot = tuple[str, str, str, Figure]


def write_report(result: JobResult, path: Path) -> None:
    """Write the report of `result` to `path` (about 5 MB, nearly all of it plotly.js)."""
    path.write_text(render_report(result), encoding="utf-8")


def render_report(result: JobResult) -> str:
    """Return the report of `result` as one self-contained HTML page, plotly.js included.

    All text of the job is escaped. The page follows the reader's light or dark colour scheme and fits a phone.
    """
    plots = figures(result)
    body = "".join((_head(result), found_sections(result, plots), artifacts_section(result), _foot(result)))
    title = f"{model_name(result)} pruned to {result.budget}"
    return page(title, body, {element: figure for element, _, _, figure in plots})


def found_sections(result: JobResult, plots: Sequence[Plot], folder: str = ".") -> str:
    """Return all that a job found as HTML, with elements for its `plots`; files lie in `folder`, an address."""
    return "".join(
        (
            cards(result),
            verdict_section(result),
            warnings_section(result.warnings),
            policies_section(result),
            plots_section([plot[:3] for plot in plots]),
            fronts_section(result, folder),
            groups_section(result),
            scores_section(result),
            certificate_section(best_outcome(result)),
        )
    )


def figures(result: JobResult) -> list[Plot]:
    """Return the report's plots."""
    fronts = [outcome.front_quantity for outcome in result.outcomes if outcome.front_quantity]
    return [
        *search_figures(result, fronts),
        *(plot for outcome in result.outcomes for plot in amc_plots(result, outcome)),
    ]


def search_figures(result: Searched, fronts: Sequence[str] = ()) -> list[Plot]:
    """Return the plots of searches, done or on their way; `fronts` are costs that are traded besides the budget's."""
    score = metric(result).label
    plots = [
        (
            "kept",
            "Density per layer",
            "Share of channels that each policy keeps in every group, in network order: the higher, the more the "
            "policy spares the layer; the lower, the more redundant it finds it.",
            kept_figure(result),
        )
    ]
    for quantity in dict.fromkeys((*result.limits, *fronts)):
        label = QUANTITY_LABELS.get(quantity, quantity)
        plots.append(
            (
                f"trials-{len(plots)}",
                f"{score.capitalize()} against {label}",
                "Every candidate that was evaluated on the search split, before fine-tuning. Faint points could not "
                "win: probes of single layers, which need not hold the budget, candidates that were screened out, and "
                "those scored with predicted weights.",
                trials_figure(result, quantity),
            )
        )
    plots.append(
        (
            "progress",
            "Best so far",
            "How many evaluations each policy needed to find its best candidate within the budget.",
            progress_figure(result),
        )
    )
    return plots


def amc_plots(result: JobResult, outcome: PolicyOutcome) -> list[Plot]:
    """Return the plots of an amc search, as :func:`figures` does; none of all others."""
    amc = outcome.amc
    if amc is None:
        return []
    drawn = "Score" if amc.reward == "-error" else "Reward"
    start = f"The first {amc.warmup:,} episodes draw uniformly, before the agent is asked." if amc.warmup else ""
    return [
        (
            "episodes",
            f"{drawn} by episode",
            f"Every candidate of {outcome.policy} as it learned, beside the best that each other policy found in this "
            f"job. {start}",
            episodes_figure(result, outcome, amc),
        ),
        (
            "density",
            "Peaks and crests",
            f"What {outcome.policy}'s winner keeps along the network: {kernels_in_words(result, outcome)}. In the "
            "paper (AMC, figure 3, ResNet-50) peaks, the layers that are spared, are 1x1 convolutions, crests, those "
            "that are cut most, 3x3 convolutions. The kernel is that of a group's first layer.",
            density_figure(result, outcome),
        ),
    ]


def _head(result: JobResult) -> str:
    """Title and one line on what was done."""
    shape = "x".join(str(size) for size in result.input_shape)
    return (
        f"<h1>{escape(model_name(result))} pruned to {escape(result.budget)}</h1>"
        f'<p class="lead">{len(result.outcomes)} {"policy" if len(result.outcomes) == 1 else "policies"} compared on '
        f"{escape(result.dataset)}, input {shape}, seed {result.seed}, {escape(duration(result.seconds))} in all.</p>"
    )


def _foot(result: JobResult) -> str:
    """What identifies the model."""
    fingerprint = f"<code>{escape(result.model_sha256)}</code>"
    return f"<footer>Made by autoprune. Fingerprint of the original model: {fingerprint}</footer>"
