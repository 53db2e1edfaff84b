"""What a study says in words, the same in the report and on the command line."""

import math
from statistics import mean, stdev

from scipy import stats

from autoprune.service.results.wording import percent
from autoprune.service.studies.study_result import CurveView, StudyResult

#: What was done after a cut, in words.
RECOVERIES = {
    "none": "nothing after the cut",
    "batchnorm": "batch norms recalibrated",
    "reconstruction": "reconstructed and recalibrated",
}

TITLES = {
    "sensitivity": "Sensitivity of the layers",
    "oracle": "Leave-one-out oracle",
    "schedule": "One shot against iterative pruning",
}

#: A group may lose this much quality and still count as hardly touched.
_LITTLE = 0.01


def verdict(result: StudyResult) -> list[str]:
    """Return what was found, a sentence each."""
    if result.study == "sensitivity":
        return _bearable(result)
    if result.oracle is not None:
        return _best_criteria(result)
    return [_difference(result)]


def final_rows(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of what every schedule ends at."""
    rows = []
    for name in dict.fromkeys(run.schedule for run in result.runs):
        runs = [run for run in result.runs if run.schedule == name]
        cells = (
            str(len(runs[0].macs)),
            percent(mean(run.macs[-1] for run in runs)),
            percent(mean(run.before[-1] for run in runs)),
            percent(mean(run.after[-1] for run in runs)),
        )
        rows.append([name, *cells])
    return ["schedule", "cuts", "MACs left", "after the last cut", "after the training"], rows


def quality_at(curve: CurveView, share: float, within: float) -> str:
    """Return the quality of a curve at the point nearest to a share removed; a dash where none is so near."""
    removed, quality = min(zip(curve.removed, curve.quality, strict=True), key=lambda point: abs(point[0] - share))
    return percent(quality) if abs(removed - share) <= within else "-"


def _bearable(result: StudyResult) -> list[str]:
    """Say which group bears most and which least, for the last recovery."""
    recovery = result.curves[-1].recovery
    most = {}
    for curve in (each for each in result.curves if each.recovery == recovery):
        pairs = zip(curve.removed, curve.quality, strict=True)
        falls = [share for share, quality in pairs if quality < curve.quality[0] - _LITTLE]
        most[curve.group] = max((share for share in curve.removed if not falls or share < falls[0]), default=0.0)
    best, worst = max(most, key=lambda name: most[name]), min(most, key=lambda name: most[name])
    if most[best] == most[worst]:
        return [
            f"Pruned alone ({RECOVERIES[recovery]}), every group keeps the network within {_LITTLE:.0%} up to "
            f"{most[best]:.0%} removed."
        ]
    best_share, worst_share = f"{most[best]:.0%}", f"{most[worst]:.0%}"
    return [
        f"Pruned alone ({RECOVERIES[recovery]}) and within {_LITTLE:.0%} of the whole network's quality, {best} can "
        f"lose {best_share} of its channels, {worst} {worst_share}."
    ]


def _best_criteria(result: StudyResult) -> list[str]:
    """Say which criterion ranks channels most like the oracle."""
    assert result.oracle is not None
    ranked = [each for each in result.oracle.criteria if each.together.spearman is not None]
    if not ranked:
        return ["No criterion tells these channels apart."]
    return [
        f"Over all layers {ranked[0].criterion} ranks channels most like the oracle (Spearman "
        f"{ranked[0].together.spearman:.3f}), {ranked[-1].criterion} least ({ranked[-1].together.spearman:.3f})."
    ]


def _difference(result: StudyResult) -> str:
    """Say what iterative pruning gains over one shot, seed by seed."""
    ends = {(run.schedule, run.seed): run.after[-1] for run in result.runs}
    gains = [100 * (ends["iterative", seed] - after) for (name, seed), after in ends.items() if name == "one shot"]
    text = f"Iterative pruning ends {mean(gains):+.2f} points from one shot"
    if len(gains) < 2:
        return f"{text}, one seed: a difference of this size may be chance."
    half = float(stats.t.ppf(0.975, len(gains) - 1)) * stdev(gains) / math.sqrt(len(gains))
    held = "" if abs(mean(gains)) > half else "; within the interval, so this shows no difference"
    return f"{text} (+- {half:.2f}, 95% interval over {len(gains)} seeds, Student t){held}."
