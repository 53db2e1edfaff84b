"""What a job or comparison found in the end, as its page shows it: what its report says, and its files."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from pydantic import ValidationError

from autoprune.service.comparisons import report as comparison_report
from autoprune.service.comparisons.comparison_result import FILE, ComparisonResult
from autoprune.service.engine.service import Service
from autoprune.service.pages.rendering import figures_json, trusted
from autoprune.service.pages.summary import Summary
from autoprune.service.reports import job_report
from autoprune.service.results import job_result
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import best_outcome
from autoprune.service.storage.states import JobKind


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found, as HTML.

    Attributes:
        sections: All that the report says of it.
        figures: What is drawn in them.
        best: Name of the policy that is best.
        onnx: Its network, by name within the job's artifacts.
        quantities: Costs that other budgets may limit; none where the job cannot answer for other budgets.

    """

    sections: Markup
    figures: Markup
    best: str
    onnx: str
    quantities: Sequence[str]


def outcome(service: Service, summary: Summary) -> Outcome | None:
    """Return what a job or comparison that succeeded found.

    None for a study, whose report has it, and where another version of autoprune wrote that down.
    """
    if summary.kind is JobKind.STUDY:
        return None
    folder = service.settings.artifact_folder(summary.job.id)
    try:
        if summary.kind is JobKind.COMPARISON:
            compared = ComparisonResult.model_validate_json((folder / FILE).read_bytes())
            plots = comparison_report.figures(compared)
            return _outcome(compared.delivered, comparison_report.found_sections(compared, plots), plots, ())
        result = JobResult.model_validate_json((folder / job_result.FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    plots = job_report.figures(result)
    asked = tuple(result.cost) if summary.job.spec["reconstruction"] else ()
    return _outcome(result, job_report.found_sections(result, plots, summary.files), plots, asked)


def _outcome(result: JobResult, sections: str, plots: Sequence[job_report.Plot], quantities: Sequence[str]) -> Outcome:
    """Put together what a page shows."""
    figures = figures_json({element: figure for element, _, _, figure in plots})
    return Outcome(trusted(sections), figures, result.best, best_outcome(result).artifacts["onnx"], quantities)
