"""One comparison: every policy searches with every seed, all on one journal; each winner ends as in a job.

The seed of the spec deals the images, refits and fine-tunes; the seeds 0, 1, ... are those of the searches. So all that
differs between two runs of a policy is the search. One that draws nothing searches once.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autoprune.files import write_whole
from autoprune.search.cluster import Cluster
from autoprune.search.journal import Journal, plan_key
from autoprune.service.comparisons.assembly import Searched, comparison_result
from autoprune.service.comparisons.comparison_result import FILE, ComparisonResult
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.report import write_report
from autoprune.service.comparisons.runs import Run, runs_of
from autoprune.service.comparisons.table import csv_text
from autoprune.service.pipeline.delivery import exported, finalist_warnings, measured_outcomes, recovered
from autoprune.service.pipeline.finalist import Recovered
from autoprune.service.pipeline.job import Job, start_job
from autoprune.service.pipeline.job_files import JOURNAL, forget_checkpoints
from autoprune.service.pipeline.latency_check import Timer, holding
from autoprune.service.pipeline.live_log import begin_log, remove_log
from autoprune.service.pipeline.outcome import final_scores, int8_view, job_result
from autoprune.service.pipeline.pools import pool_for
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.pipeline.searchers import Found
from autoprune.service.pipeline.searching import is_trained, latency_check, search_policy
from autoprune.service.results.job_result import REPORT, JobResult
from autoprune.service.specs.amc_options import AGENT_ARTIFACT
from autoprune.service.specs.progress import Progress

TABLE = "comparison.csv"


def run_comparison(
    spec: ComparisonSpec,
    directory: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    timer: Timer | None = None,
    cluster: Cluster | None = None,
) -> ComparisonResult:
    """Run one whole comparison and leave its artifacts in `directory`.

    ``comparison.json`` is removed first and written last: where it exists, the comparison is complete. One that was
    killed is run again with the same arguments in the same folder, as a job is.

    Args:
        spec: What to do.
        directory: Folder of the artifacts; made if it is missing.
        progress: Told how far the comparison is.
        should_stop: Asked now and then whether to stop.
        timer: Times files on the device that `spec` names; without, this machine times them.
        cluster: Evaluates the candidates; without, the one that ``AUTOPRUNE_CLUSTER`` names, or this machine.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or a result that does not hold what it claims.
        Cancelled: `should_stop` said so.

    """
    started = time.monotonic()
    results = (FILE, TABLE, REPORT)
    job = start_job(
        spec,
        directory,
        results=results,
        progress=progress,
        should_stop=should_stop,
        timer=timer,
        cluster=cluster,
    )
    begin_log(job)
    searched = _searched(job, spec)
    winners = _recovered(job, searched.held)
    chosen = _chosen(searched.held, winners)
    score = Scorer(job.inputs.splits.report, job.inputs.problem.network.module)
    delivered = _delivered(job, searched, winners, chosen, score, started)
    result = comparison_result(spec, job, searched, winners, chosen, delivered, score)
    write_report(result, directory / REPORT)
    write_whole(directory / TABLE, csv_text(result).encode())
    write_whole(directory / FILE, result.model_dump_json(indent=1).encode())
    remove_log(directory)
    forget_checkpoints(directory)
    job.say("done", 1, 1, "finished")
    return result


def _searched(job: Job, spec: ComparisonSpec) -> Searched:
    """Run all searches; with a budget of latency, time their best candidates."""
    planned = runs_of(spec)
    found: dict[Run, Found] = {}
    computed: dict[Run, int] = {}
    with Journal.open(job.directory / JOURNAL) as journal, pool_for(job, searches=len(planned)) as pool:
        if job.earlier is not None:
            job.earlier.hand_over(journal)
        first = known = len(journal)
        for run in planned:
            before = {earlier.policy: found[earlier] for earlier in run.before(spec)}
            found[run] = search_policy(run.job(job), run.policy, journal, pool, before)
            computed[run], known = len(journal) - known, len(journal)
        check = latency_check(job, journal, pool)

        def say(run: Run, done: int) -> None:
            run.job(job).say("measure", done, len(found), "latency of the candidates that come first", run.policy)

        held = holding(found, check, say)
        return Searched(found, held, computed, len(journal) - first, check)


def _recovered(job: Job, held: Mapping[Run, Found]) -> dict[Run, Recovered]:
    """Recover the winner of every search; where several found the same network, once."""
    winners: dict[Run, Recovered] = {}
    known: dict[tuple[str, Run | None], Recovered] = {}
    for run, search in held.items():
        own = run.job(job)
        plan = job.inputs.problem.plan(search.result.best.policy)
        key = (plan_key(plan), run if is_trained(own, run.policy) else None)
        if key not in known:
            known[key] = recovered(own, run.policy, search)
        winners[run] = known[key]
    return winners


def _chosen(held: Mapping[Run, Found], winners: Mapping[Run, Recovered]) -> list[Run]:
    """Return the run of each policy whose final network is best on the search split; of equals the first seed."""

    def quality(run: Run) -> tuple[float, float]:
        scores = final_scores(held[run], winners[run])
        return scores.objective, -scores.regret

    policies = dict.fromkeys(run.policy for run in held)
    return [max((run for run in held if run.policy == policy), key=quality) for policy in policies]


def _delivered(
    job: Job,
    searched: Searched,
    winners: Mapping[Run, Recovered],
    chosen: Sequence[Run],
    score: Scorer,
    started: float,
) -> JobResult:
    """Export the chosen runs, certify the files, and put them together as a job would."""
    held = searched.held
    finalists = [exported(job, run.policy, held[run], winners[run]) for run in chosen]
    for run in chosen:
        agent = run.job(job).directory / AGENT_ARTIFACT
        if held[run].amc is not None and agent != job.directory / AGENT_ARTIFACT:
            shutil.copyfile(agent, job.directory / AGENT_ARTIFACT)
    outcomes = measured_outcomes(job, finalists, searched.check, score)
    left_out = [
        f"{run} is left out: its candidates, timed whole, are too slow for the budget"
        for run in searched.found
        if run not in held
    ]
    return job_result(
        job.spec,
        job.inputs,
        [each.model_copy(update={"seed": run.seed}) for run, each in zip(chosen, outcomes, strict=True)],
        int8=None if job.int8 is None else int8_view(job.int8, score),
        warnings=[*left_out, *finalist_warnings(job, finalists, searched.check)],
        search=job.evaluator.unpruned(),
        report=score(job.inputs.problem.network.module),
        seconds=time.monotonic() - started,
        continued=None,  # of several searches, none is the one that went on
    )
