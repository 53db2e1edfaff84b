"""The runs of a comparison as comma-separated values, for spreadsheets and notebooks."""

import csv
import io
from collections.abc import Mapping

from autoprune.service.comparisons.comparison_result import ComparisonResult, RunView
from autoprune.service.results.job_result import ScoresView


def csv_text(result: ComparisonResult) -> str:
    """Return one line per run under a line of names; what there is none of is left empty."""
    rows = [_row(run) for run in result.runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(run: RunView) -> Mapping[str, object]:
    """Return the cells of one run by their names."""
    return {
        "policy": run.policy,
        "seed": run.seed,
        "delivered": run.delivered,
        "trials": len(run.trials),
        "evaluations": run.evaluations,
        "computed": run.computed,
        "seconds": run.seconds,
        **{f"cost_{quantity}": cost for quantity, cost in run.cost.items()},
        **_scores("search", run.search),
        **_scores("search_final", run.search_final),
        **_scores("report_pruned", run.report_pruned),
        **_scores("report", run.report),
    }


def _scores(split: str, scores: ScoresView) -> Mapping[str, object]:
    """Return the scores on one split by their names."""
    return {f"{split}_{name}": value for name, value in scores.model_dump().items()}
