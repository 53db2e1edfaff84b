"""What a study measured as a table, a row per figure: ``study.csv``."""

import csv
import io
from collections.abc import Iterator

from autoprune.service.studies.study_result import CorrelationView, StudyResult

#: Of correlations over all groups.
ALL = "all groups"
NORMALISED = "all groups, normalised"

_HEADS = {
    "sensitivity": ("group", "recovery", "removed", "kept", "quality", "loss"),
    "oracle": ("criterion", "over", "spearman", "kendall", "channels"),
    "schedule": ("schedule", "seed", "cut", "macs", "channels", "before", "after"),
}


def csv_text(result: StudyResult) -> str:
    """Return the table; of an oracle the correlations (the loss changes are in the document)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_HEADS[result.study])
    rows = {"sensitivity": _points, "oracle": _correlations, "schedule": _cuts}[result.study](result)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return stream.getvalue()


def _points(result: StudyResult) -> Iterator[tuple[object, ...]]:
    """Yield the points of all curves."""
    for curve in result.curves:
        for point in zip(curve.removed, curve.kept, curve.quality, curve.loss, strict=True):
            yield (curve.group, curve.recovery, *point)


def _correlations(result: StudyResult) -> Iterator[tuple[object, ...]]:
    """Yield the correlations of all criteria."""
    assert result.oracle is not None
    for each in result.oracle.criteria:
        found: dict[str, CorrelationView] = {ALL: each.together, NORMALISED: each.normalised, **each.groups}
        for over, correlation in found.items():
            yield each.criterion, over, correlation.spearman, correlation.kendall, correlation.channels


def _cuts(result: StudyResult) -> Iterator[tuple[object, ...]]:
    """Yield the cuts of all runs."""
    for run in result.runs:
        for cut, figures in enumerate(zip(run.macs, run.channels, run.before, run.after, strict=True), start=1):
            yield (run.schedule, run.seed, cut, *figures)
