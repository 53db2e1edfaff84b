"""What a comparison shows, in plain words: the same for the terminal, the report and ``comparison.json``."""

from collections.abc import Callable, Sequence

from autoprune.service.comparisons.comparison_result import (
    ComparisonResult,
    IntervalView,
    MilestoneView,
    PairView,
    PolicyView,
)
from autoprune.service.results.wording import duration, listed, metric, percent, remarks

#: Against which all others are held.
BASELINE = "uniform"

#: The usual line below which a difference is said not to be chance.
SIGNIFICANT = 0.05

#: Below this, a probability is not written out.
SMALL = 0.001


def verdicts(result: ComparisonResult) -> list[str]:
    """Say who beats uniform pruning, who leads when, what the figures rest on, and what they do not show."""
    return [
        *_spread(result),
        *_against_baseline(result),
        *_leaders(result),
        _counted(result),
        *remarks(result.delivered),
    ]


def interval_text(found: IntervalView, *, points: bool = False) -> str:
    """Write a mean with its interval: ``83.1% ± 1.2``; without sign for shares, in points with one."""
    mean = f"{100 * found.mean:+.1f}" if points else percent(found.mean)
    return mean if found.high is None else f"{mean} ± {100 * (found.high - found.mean):.1f}"


def p_text(p: float | None) -> str:
    """Write a probability for people; a dash where there is none."""
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= SMALL else f"below {SMALL}"


def _p(p: float) -> str:
    """Write a probability within a sentence."""
    return f"p = {p:.3f}" if p >= SMALL else f"p < {SMALL}"


def ends_text(milestone: MilestoneView) -> str:
    """Say whose searches end at a milestone."""
    return f"{listed(milestone.ends)} ended" if milestone.ends else ""


def proposals_text(policy: PolicyView) -> str:
    """Say what a policy proposed that nobody else did."""
    found = policy.proposals
    share = f" ({found.alone / found.distinct:.0%})" if found.distinct else ""
    return f"{found.alone:,} of {found.distinct:,}{share}"


def groups_text(policy: PolicyView) -> str:
    """Say where a policy's network differs most from the others'."""
    groups = [f"{each.group} {each.kept:.0%} (others {each.others:.0%})" for each in policy.proposals.groups]
    return ", ".join(groups) or "nowhere"


def _spread(result: ComparisonResult) -> list[str]:
    """Say what the seeds are, and what they cannot show."""
    once = [policy.policy for policy in result.policies if not policy.seeds]
    texts = []
    if len(result.seeds) == 1:
        texts.append(
            "With one seed there is no interval, and nothing is shown about the spread: another seed may end otherwise."
        )
    if once:
        verb = "draws" if len(once) == 1 else "draw"
        texts.append(
            f"{listed(once)} {verb} nothing and searched once{' each' if len(once) > 1 else ''}; the others searched "
            f"with {_seeds(len(result.seeds))}. Uniform, random and sensitivity are in every comparison, asked for or "
            "not."
        )
    return texts


def _against_baseline(result: ComparisonResult) -> list[str]:
    """Say, one text per policy, whether it beats uniform pruning by more than luck."""
    uniform = result.policy(BASELINE)
    if uniform is None:
        return ["Uniform pruning was left out, so nothing here shows that a search was worth its time."]
    texts = []
    for policy in result.policies:
        pair = result.pair(policy.policy, BASELINE)
        if policy is not uniform and pair is not None:
            texts.append(f"{_verdict(result, policy, uniform, pair)} {_on_images(result, pair)}")
    return texts


def _verdict(result: ComparisonResult, policy: PolicyView, uniform: PolicyView, pair: PairView) -> str:
    """Say how one policy stands to uniform pruning over the seeds."""
    found, points = pair.difference, f"{abs(100 * pair.difference.mean):.1f} points"
    name, label = policy.policy, metric(result.delivered).label
    figures = f"{percent(policy.report.mean)} against {percent(uniform.report.mean)} {label} on the report images"
    if found.low is None or found.high is None or pair.t_p is None:  # one seed, or all seeds alike
        where = f"{points} {'above' if found.mean > 0 else 'below'}" if abs(found.mean) > 1e-9 else "level with"
        alike = f", alike with all of {_seeds(found.n)}: these show no spread" if found.n > 1 else ""
        return f"{name} ends {where} {BASELINE} ({figures}){alike}."
    ends = f"95%: {100 * found.low:+.1f} to {100 * found.high:+.1f} over {_seeds(found.n)}"
    spread = f"{ends}, paired t-test {_p(pair.t_p)}"
    if found.low > 0:
        return f"{name} beats {BASELINE} by {points}, by more than the interval ({spread}; {figures})."
    if found.high < 0:
        return f"{name} is worse than {BASELINE} by {points}, by more than the interval ({spread}; {figures})."
    signed = f"{100 * found.mean:+.1f} points"
    return f"{name} does not beat {BASELINE} by more than the interval: {signed} ({spread}; {figures})."


def _on_images(result: ComparisonResult, pair: PairView) -> str:
    """Say whether the delivered networks of two policies differ by more than the choice of images may explain."""
    images = result.delivered.report.images
    if pair.only_first == pair.only_second == 0:
        return f"Its delivered network and {pair.second}'s are right on the same of the {images:,} images."
    chance = "more than chance" if pair.mcnemar_p < SIGNIFICANT else "on so few images that can be chance"
    return (
        f"Of the {images:,} images {pair.only_first:,} are right with its delivered network only and "
        f"{pair.only_second:,} with {pair.second}'s only: {chance} (McNemar's {_p(pair.mcnemar_p)})."
    )


def _leaders(result: ComparisonResult) -> list[str]:
    """Say who leads on the search images at equal evaluations, and at equal time."""
    texts = [f"At equal evaluations, best so far on the search images: {_led(result.by_evaluations, _count)}."]
    if result.by_seconds:
        texts.append(
            "At equal time (of one process, for the policy's own work and its evaluations): "
            f"{_led(result.by_seconds, duration)}."
        )
    else:
        texts.append("Who leads at equal time is not known: some evaluations are of a journal that kept no times.")
    return texts


def _led(milestones: Sequence[MilestoneView], written: Callable[[float], str]) -> str:
    """Say who leads at which milestones, those in a row together."""
    spans: list[tuple[str, list[float]]] = []
    for milestone in milestones:
        leaders = listed(milestone.leaders) if milestone.leaders else "nobody"
        if not spans or spans[-1][0] != leaders:
            spans.append((leaders, []))
        spans[-1][1].append(milestone.at)
    return "; ".join(
        f"{leaders} after {written(points[0])}"
        if len(points) == 1
        else f"{leaders} from {written(points[0])} to {written(points[-1])}"
        for leaders, points in spans
    )


def _counted(result: ComparisonResult) -> str:
    """Say what the figures rest on."""
    rest = result.distinct - result.computed
    if rest == 0:
        known = "all of these were computed now"
    elif result.computed == 0:
        known = "none of these was computed now, all were in the journal"
    else:
        known = f"{result.computed:,} of these were computed now, {rest:,} were in the journal"
    return f"{result.trials:,} trials were asked for and rest on {result.distinct:,} different evaluations; {known}."


def _count(evaluations: float) -> str:
    """Write a number of evaluations, which screening and means make broken."""
    return f"{evaluations:,.0f}" if evaluations == round(evaluations) else f"{evaluations:,.1f}"


def _seeds(number: int) -> str:
    """Write a number of seeds."""
    return "1 seed" if number == 1 else f"{number} seeds"
