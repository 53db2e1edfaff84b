"""Puts together what a comparison says, from what its searches and their winners were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.service.comparisons.comparison_result import ComparisonResult, PolicyView, RunView
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.proposals import Kept, proposals_view
from autoprune.service.comparisons.runs import Run
from autoprune.service.comparisons.summary import by_policy, front, milestones, pair_views, policy_view
from autoprune.service.comparisons.words import verdicts
from autoprune.service.pipeline.finalist import Recovered
from autoprune.service.pipeline.job import Job
from autoprune.service.pipeline.latency_check import LatencyCheck
from autoprune.service.pipeline.outcome import final_scores, spent, trial_views, view
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.pipeline.searchers import Found
from autoprune.service.results.curves import evaluations, seconds
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import metric


@dataclass(frozen=True, slots=True)
class Searched:
    """What all searches of a comparison ended with.

    Attributes:
        found: What each found.
        held: The same of those with winners that hold a limit of latency as measured.
        computed: Evaluations that were computed now for each.
        all_computed: Evaluations that were computed now, those for the limit of latency included.
        check: What timed candidates; None where latency is not limited.

    """

    found: Mapping[Run, Found]
    held: Mapping[Run, Found]
    computed: Mapping[Run, int]
    all_computed: int
    check: LatencyCheck | None

    @property
    def asked(self) -> frozenset[tuple[str, str]]:
        """Keys of all evaluations that the comparison rests on."""
        own = [search.result.asked for search in self.found.values()]
        return frozenset[tuple[str, str]]().union(*own, () if self.check is None else self.check.answers.asked)

    def proposed(self) -> dict[str, set[Kept]]:
        """Return the candidates within the budget that each policy proposed, over all its seeds."""
        proposed: dict[str, set[Kept]] = {}
        for run, search in self.held.items():
            own = {trial.kept for trial in search.result.trials if trial.competes}
            proposed.setdefault(run.policy, set()).update(own)
        return proposed


def comparison_result(
    spec: ComparisonSpec,
    job: Job,
    searched: Searched,
    winners: Mapping[Run, Recovered],
    chosen: Sequence[Run],
    delivered: JobResult,
    score: Scorer,
) -> ComparisonResult:
    """Return the whole comparison; `score` opens the report split for the runs that are not `delivered`."""
    runs = []
    for done, run in enumerate(sorted(searched.held, key=lambda run: spec.policies.index(run.policy)), start=1):
        run.job(job).say("report", done, len(searched.held), "scoring on the report split", run.policy)
        runs.append(_run_view(job, run, searched, winners[run], score, delivered=run in chosen))
    right = {run.policy: score.right(winners[run].final) for run in chosen}
    quarters = {max(1, round(spec.evaluations * share)) for share in (0.25, 0.5, 1)}
    result = ComparisonResult(
        delivered=delivered,
        seeds=list(range(spec.seeds)),
        evaluations=spec.evaluations,
        runs=runs,
        policies=_policy_views(job, searched, runs, delivered),
        pairs=pair_views(runs, metric(delivered), right),
        by_evaluations=milestones(runs, evaluations, at=quarters),
        by_seconds=milestones(runs, seconds),
        fronts={quantity: front(runs, quantity) for quantity in delivered.limits},
        trials=sum(len(search.result.trials) for search in searched.found.values()),
        distinct=len(searched.asked),
        computed=searched.all_computed,
        verdicts=[],
    )
    return result.model_copy(update={"verdicts": verdicts(result)})


def _run_view(job: Job, run: Run, searched: Searched, winner: Recovered, score: Scorer, *, delivered: bool) -> RunView:
    """Describe one search and its winner."""
    search = searched.held[run]
    best, trials = search.result.best, trial_views(search.result.trials)
    return RunView(
        policy=run.policy,
        seed=run.seed,
        delivered=delivered,
        trials=trials,
        evaluations=spent(search.result, job.inputs),
        computed=searched.computed[run],
        seconds=trials[-1].seconds,
        kept=dict(zip(job.inputs.problem.names, best.kept, strict=True)),
        cost=dict(best.cost),
        search=view(best.scores),
        search_final=view(final_scores(search, winner)),
        report_pruned=view(score(winner.before)),
        report=view(score(winner.final)),
    )


def _policy_views(job: Job, searched: Searched, runs: Sequence[RunView], delivered: JobResult) -> list[PolicyView]:
    """Summarise every policy over its seeds."""
    problem, proposed = job.inputs.problem, searched.proposed()
    sizes = {group.name: len(group) for group in problem.groups}
    kept = {outcome.policy: outcome.kept for outcome in delivered.outcomes}
    return [
        policy_view(policy, own, metric(delivered), proposals_view(policy, proposed, kept, sizes))
        for policy, own in by_policy(runs).items()
    ]
