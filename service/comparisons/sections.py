"""Sections of a comparison's report as HTML text. What came from outside passes through :func:`html.escape` here."""

from collections.abc import Callable, Sequence
from html import escape

from autoprune.service.comparisons.comparison_result import ComparisonResult, MilestoneView, RunView
from autoprune.service.comparisons.words import ends_text, groups_text, interval_text, p_text, proposals_text
from autoprune.service.reports.html import section, table
from autoprune.service.results.wording import QUANTITY_LABELS, duration, metric, percent


def verdict_section(result: ComparisonResult) -> str:
    """What the comparison shows, in words."""
    best = result.delivered.best
    chosen = (
        f"<b>{escape(best)}</b> is delivered as the best: of {len(result.runs)} final networks its is the best on the "
        "search images. The report images never choose."
    )
    lines = [f'<p class="verdict">{escape(text)}</p>' for text in result.verdicts]
    return section("What this shows", f"<p>{chosen}</p>{''.join(lines)}")


def policies_section(result: ComparisonResult) -> str:
    """Means over seeds, with their intervals."""
    delivered = result.delivered
    measure = metric(delivered)
    tuned = any(outcome.report_finetuned is not None for outcome in delivered.outcomes)
    head = ["policy", *(["report: fine-tuned"] if tuned else []), "report: pruned", "search: found", "search: final"]
    head += ["trials", "search time", "seeds"]
    unpruned = percent(measure.of(delivered.report)), percent(measure.of(delivered.search))
    rows = [["unpruned", *[unpruned[0]] * (1 + tuned), *[unpruned[1]] * 2, "-", "-", "-"]]
    for policy in result.policies:
        texts = [interval_text(policy.report)] if tuned else []
        texts += [interval_text(each) for each in (policy.report_pruned, policy.search, policy.search_final)]
        seconds = "-" if policy.seconds is None else duration(policy.seconds.mean)
        rows.append(
            [escape(policy.policy), *texts, f"{policy.trials:,.1f}".removesuffix(".0"), escape(seconds),
             f"{len(policy.seeds)}" if policy.seeds else "-"]
        )  # fmt: skip
    kinds = ["unpruned", *("best" if policy.policy == delivered.best else "" for policy in result.policies)]
    note = (
        f"{measure.label.capitalize()}, mean over the seeds ± half of Student's 95% interval, on "
        f"{delivered.report.images:,} report images (touched once, at the end) and {delivered.search.images:,} search "
        "images. The spread is that of the search alone: images, refit and fine-tuning are the same for all. Search "
        "time is that of one process, evaluations that the journal answered included."
    )
    return section("Policies over seeds", table(head, rows, note, kinds=kinds))


def milestones_section(result: ComparisonResult) -> str:
    """Who leads at equal evaluations, and at equal time."""
    by_evaluations = _milestones(
        result,
        result.by_evaluations,
        "evaluations",
        lambda at: f"{at:,.1f}".removesuffix(".0"),
        "Best so far on the search images after so many evaluations, mean over the seeds; a search that has ended "
        "stands with what it found. The leader is marked.",
    )
    by_seconds = _milestones(
        result,
        result.by_seconds,
        "time",
        duration,
        "The same after so much time of one process: each policy's own work and what its evaluations took when they "
        "were computed. Work that all share, such as statistics for reconstruction, is not counted; nor is what a "
        "policy that learns from others' trials owes to them.",
    )
    body = f"<h3>At equal evaluations</h3>{by_evaluations}"
    if result.by_seconds:
        body += f"<h3>At equal time</h3>{by_seconds}"
    return section("Who leads when", body)


def pairs_section(result: ComparisonResult) -> str:
    """Every policy against every other one."""
    head = ["pair", "difference (points)", "seeds", "t-test p", "Wilcoxon p", "only first right", "only second right"]
    rows = [
        [
            f"{escape(pair.first)} - {escape(pair.second)}",
            interval_text(pair.difference, points=True),
            f"{pair.difference.n}",
            p_text(pair.t_p),
            p_text(pair.wilcoxon_p),
            f"{pair.only_first:,}",
            f"{pair.only_second:,}",
            p_text(pair.mcnemar_p),
        ]
        for pair in result.pairs
    ]
    note = (
        "Final networks on the report images. Differences and the paired tests are over the seeds of the search; "
        "Wilcoxon's needs six that differ. McNemar's test is over the images, for the delivered network of each. No p "
        f"is corrected for there being {len(rows)} pairs: of twenty without any difference one falls below 0.05."
    )
    return section("Pairs", table([*head, "McNemar p"], rows, note))


def proposals_section(result: ComparisonResult) -> str:
    """What each policy proposed that others did not."""
    rows = [
        [escape(policy.policy), proposals_text(policy), f'<span class="note">{escape(groups_text(policy))}</span>']
        for policy in result.policies
    ]
    note = (
        "Different candidates within the budget over all seeds, how many of them nobody else proposed, and the groups "
        "whose share of kept channels differs most from the mean of the other policies' delivered networks."
    )
    head = ["policy", "proposed by it alone", "its network differs most at"]
    return section("What each proposed that others did not", table(head, rows, note))


def runs_section(result: ComparisonResult) -> str:
    """Every search."""
    delivered, measure = result.delivered, metric(result.delivered)
    quantities = [name for name in dict.fromkeys((*delivered.limits, "macs", "params")) if name in delivered.cost]
    head = ["run", "report", "report: pruned", "search: found", "search: final"]
    head += [f"{QUANTITY_LABELS.get(name, name)} left" for name in quantities]
    rows = []
    for run in result.runs:
        tag = '<span class="tag">delivered</span>' if run.delivered else ""
        scores = [percent(measure.of(each)) for each in (run.report, run.report_pruned, run.search, run.search_final)]
        costs = [percent(run.cost[name] / delivered.cost[name]) for name in quantities]
        rows.append([_run_name(run) + tag, *scores, *costs, f"{len(run.trials):,}", f"{run.computed:,}",
                     "-" if run.seconds is None else escape(duration(run.seconds))])  # fmt: skip
    note = (
        "Computed: evaluations that no search before it, and no earlier comparison on this journal, had asked for. Of "
        "each policy the run whose final network is best on the search images was exported."
    )
    body = table([*head, "trials", "computed", "search time"], rows, note)
    return section("All runs", f"<details><summary>{len(rows)} searches</summary>{body}</details>")


def _milestones(
    result: ComparisonResult,
    milestones: Sequence[MilestoneView],
    axis: str,
    written: Callable[[float], str],
    note: str,
) -> str:
    """A table with a row per milestone and a column per policy."""
    policies = [policy.policy for policy in result.policies]
    rows = []
    for milestone in milestones:
        cells = [
            f"<b>{percent(milestone.best[policy])}</b>" if policy in milestone.leaders
            else percent(milestone.best[policy])
            for policy in policies
        ]  # fmt: skip
        rows.append([escape(written(milestone.at)), *cells, escape(ends_text(milestone))])
    return table([axis, *(escape(policy) for policy in policies), ""], rows, note)


def _run_name(run: RunView) -> str:
    """Name a run."""
    return escape(run.policy if run.seed is None else f"{run.policy}, seed {run.seed}")
