"""Policies of one job side by side, in words and rows: the same for the terminal and for the report.

What several seeds show is put into words in :mod:`autoprune.service.comparisons.words`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from autoprune.costs.quantities import LATENCY
from autoprune.service.results.job_result import (
    AmcView,
    ContinuedView,
    Int8View,
    JobResult,
    PolicyOutcome,
    PruningNetView,
    ScoresView,
    ScreeningView,
)
from autoprune.service.results.searched import Searched

#: Policies that look at nothing but the budget; every other policy has to beat them to be worth its time.
BASELINES = ("uniform", "random", "qmc")

QUANTITY_LABELS = {"macs": "MACs", "params": "parameters", "bytes": "file bytes", LATENCY: "latency"}


@dataclass(frozen=True, slots=True)
class Metric:
    """The one figure that networks are compared by: accuracy, or agreement where there are no labels.

    Attributes:
        field: Its name in :class:`ScoresView`.
        label: How people call it.

    """

    field: str
    label: str

    def of(self, scores: ScoresView | None) -> float | None:
        """Return its value in `scores`, from 0 to 1."""
        value = None if scores is None else getattr(scores, self.field)
        return None if value is None else float(value)


TOP1 = Metric("top1", "top-1 accuracy")
AGREEMENT = Metric("agreement", "agreement with the unpruned network")


def model_name(result: JobResult) -> str:
    """Return the model's name without its folder."""
    return PurePath(result.model).name or result.model


def metric(result: Searched) -> Metric:
    """Return the figure that these searches' networks are compared by."""
    return AGREEMENT if result.search.top1 is None else TOP1


def final_report(outcome: PolicyOutcome) -> ScoresView:
    """Return the report scores of the network that the policy delivers: fine-tuned if there was fine-tuning."""
    return outcome.report_finetuned or outcome.report


def outcome_of(result: JobResult, policy: str) -> PolicyOutcome | None:
    """Return the outcome of `policy`, or None if it was not run."""
    return next((outcome for outcome in result.outcomes if outcome.policy == policy), None)


def best_outcome(result: JobResult) -> PolicyOutcome:
    """Return the outcome that the search split chose."""
    best = outcome_of(result, result.best)
    assert best is not None, f"best policy {result.best!r} is not among the outcomes"
    return best


def noise(a: float, b: float, images: int) -> float:
    """Return the difference of two shares of `images` images that chance alone exceeds once in twenty times.

    Normal approximation for independent samples. Both networks saw the same images, so the true threshold is usually
    somewhat smaller.
    """
    return 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / max(images, 1))


def verdicts(result: JobResult) -> list[str]:
    """Say in plain words what the job shows, and what else is to be known about its searches."""
    return [*_comparisons(result), *remarks(result)]


def remarks(result: JobResult) -> list[str]:
    """Say what an earlier job was good for, how screening ranked, what an agent knew before, and what int8 cost."""
    screened = [
        _screening(outcome.policy, outcome.screening)
        for outcome in result.outcomes
        if outcome.screening and (outcome.screening.screened_out or outcome.screening.turned_off)
    ]
    measure = metric(result)
    amc = [text for outcome in result.outcomes if outcome.amc for text in _amc(outcome, outcome.amc)]
    nets = [_pruningnet(result, each, each.pruningnet) for each in result.outcomes if each.pruningnet]
    int8 = [_int8(measure, each.policy, each.int8) for each in result.outcomes if each.int8]
    fronts = [_front(result, each, each.front_quantity) for each in result.outcomes if each.front_quantity]
    return [*_continued(result.continued), *screened, *amc, *nets, *int8, *fronts]


def _continued(continued: ContinuedView | None) -> list[str]:
    """Say what of an earlier job was of use."""
    if continued is None:
        return []
    return [
        f"The job went on from {continued.source} ({continued.budget}), which knew {continued.known:,} networks: "
        f"{continued.reused:,} of them were tried here, and not evaluated again."
    ]


def _front(result: JobResult, outcome: PolicyOutcome, quantity: str) -> str:
    """Say what front a policy found, and how much of it was exported."""
    trials = {trial.number: trial for trial in outcome.trials}
    policy, label = outcome.policy, QUANTITY_LABELS.get(quantity, quantity)
    shares = [trials[number].cost[quantity] / result.cost[quantity] for number in outcome.front]
    return (
        f"{policy} looked for a front: {len(shares)} plans from {percent(min(shares))} to {percent(max(shares))} of "
        f"the {label}, none of which another trial beats on the search images; {len(outcome.front_points)} of them are "
        f"exported, in {policy}/front. Its evaluations went into all of them, its winner is but one."
    )


def _int8(measure: Metric, policy: str, int8: Int8View) -> str:
    """Say what quantising a policy's network cost."""
    return (
        f"{policy} in int8, calibrated on {int8.calibration_images:,} fit images: {percent(measure.of(int8.search))} "
        f"{measure.label} on the search images, {percent(measure.of(int8.search_fp32))} in float32."
    )


def _screening(policy: str, screening: ScreeningView) -> str:
    """Say how a search was screened."""
    if screening.turned_off is not None:
        return f"Screening of {policy} was turned off: {screening.turned_off}."
    tau = "not defined" if screening.kendall_tau is None else f"{screening.kendall_tau:.2f}"
    return (
        f"Screening of {policy}: {screening.screened_out} candidates were scored on {screening.images:,} search images "
        f"only; over the {screening.pairs} scored on all as well, Kendall's tau of both rankings is {tau}."
    )


def _amc(outcome: PolicyOutcome, amc: AmcView) -> list[str]:
    """Say what an agent knew before its search, and whether the search stopped early, or before it was asked."""
    policy, known = outcome.policy, []
    if amc.agent is not None:
        known.append(f"{policy} went on with an agent that was trained before, {amc.agent}.")
    if amc.experience > 0:
        known.append(
            f"{policy} learned from {amc.experience:,} trials of the policies before it first: "
            "more evaluations than its own went into it."
        )
    if amc.warmup >= amc.episodes:
        known.append(
            f"The agent of {policy} was never asked: its {amc.episodes:,} episodes were all of the warm-up, drawn "
            "uniformly. Allow more evaluations, or a shorter warm-up."
        )
    if amc.stopped_below is not None:
        known.append(
            f"{policy} stopped after {amc.episodes:,} episodes and {outcome.evaluations - amc.first + 1:,} of "
            f"{amc.allowed:,} evaluations: the rest was expected to gain less than {100 * amc.stopped_below:.1f} "
            "points, the standard error of a score."
        )
    return known


def _pruningnet(result: JobResult, outcome: PolicyOutcome, net: PruningNetView) -> str:
    """Say what a search with predicted weights went by, and how well that ranks."""
    measure = metric(result)
    text = (
        f"{outcome.policy} scored its candidates with weights that a PruningNet predicts, trained for "
        f"{len(net.losses)} epochs on {net.images:,} images: its winner had {percent(measure.of(net.predicted))} "
        f"{measure.label} with those and has {percent(measure.of(outcome.search))} with the weights that every "
        "policy's winner gets."
    )
    if net.audit is None:
        return text
    tau = (
        "not defined" if net.audit.kendall_tau is None else f"{net.audit.kendall_tau:.2f} (p = {net.audit.p_value:.1g})"
    )
    return (
        f"{text} Over {net.audit.plans} random plans, Kendall's tau of its ranking and that after fine-tuning, both on "
        f"the search images, is {tau}."
    )


def _comparisons(result: JobResult) -> list[str]:
    """Say, one sentence per policy, whether it beat uniform pruning at the same budget."""
    uniform = outcome_of(result, "uniform")
    clever = [outcome for outcome in result.outcomes if outcome.policy not in BASELINES]
    if uniform is None:
        return [
            "Uniform pruning was not run in this job, so nothing here shows that the search was worth its time. "
            "Add the policy 'uniform' to compare."
        ]
    if not clever:
        return ["Only baselines were run in this job; there is no search to compare them with."]
    return [_verdict(result, outcome, uniform) for outcome in clever]


def _verdict(result: JobResult, outcome: PolicyOutcome, uniform: PolicyOutcome) -> str:
    """Say whether one policy beat uniform on the report split, and whether the difference means anything."""
    measure = metric(result)
    found, base = measure.of(final_report(outcome)), measure.of(final_report(uniform))
    if found is None or base is None:
        return f"{outcome.policy} and uniform cannot be compared: no scores on the report split."
    images = final_report(outcome).images
    points = 100 * (found - base)
    figures = f"{percent(found)} against {percent(base)} {measure.label}, {images:,} report images"
    within = abs(found - base) <= noise(found, base, images)
    if points > 0 and within:
        return (
            f"{outcome.policy} ends {points:.1f} points above uniform ({figures}), "
            "but so small a difference can be chance on so few images: it is not shown to be better."
        )
    if points > 0:
        return f"{outcome.policy} beat uniform by {points:.1f} points ({figures})."
    if points == 0:
        both = f"both end at {percent(found)} {measure.label}"
        return f"{outcome.policy} did not beat uniform: {both} ({images:,} report images)."
    caveat = " So small a difference can be chance on so few images." if within else ""
    return f"{outcome.policy} did not beat uniform: it is {-points:.1f} points worse ({figures}).{caveat}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.{digits}f}%"


def duration(seconds: float) -> str:
    """Write a time span for people: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listed(names: Sequence[str]) -> str:
    """List names for people: ``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def shares(result: JobResult, cost: dict[str, int]) -> dict[str, float]:
    """Return `cost` as shares of the unpruned network's: what the budget limits first, then MACs and parameters."""
    names = dict.fromkeys((*result.limits, "macs", "params"))
    return {name: cost[name] / result.cost[name] for name in names if result.cost.get(name)}
