"""One job, from model file to certified ONNX: load, search with every policy, recover, export, certify, report.

A job that was killed is run again with the same arguments in the same folder: the journal there answers what was
already evaluated, trainings and refits are taken from their checkpoints, everything else is recomputed from the seed,
and the result is the same. A comparison
(:mod:`autoprune.service.comparisons.run`) takes the same steps for several seeds.
"""

import time
from collections.abc import Callable
from pathlib import Path

from autoprune.files import write_whole
from autoprune.search.cluster import Cluster
from autoprune.search.journal import Journal
from autoprune.service.pipeline.continuing import job_evidence
from autoprune.service.pipeline.delivery import (
    exported,
    exported_front,
    finalist_warnings,
    measured_outcomes,
    recovered,
)
from autoprune.service.pipeline.job import start_job
from autoprune.service.pipeline.job_files import EVIDENCE, JOURNAL, forget_checkpoints
from autoprune.service.pipeline.latency_check import (
    Timer,
    holding,
)
from autoprune.service.pipeline.live_log import begin_log, remove_log
from autoprune.service.pipeline.outcome import int8_view, job_result
from autoprune.service.pipeline.pools import pool_for
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.pipeline.searchers import Found
from autoprune.service.pipeline.searching import latency_check, search_policy
from autoprune.service.reports.job_report import write_report
from autoprune.service.results.job_result import FILE, REPORT, JobResult
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress


def run_job(
    spec: JobSpec,
    directory: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    timer: Timer | None = None,
    cluster: Cluster | None = None,
) -> JobResult:
    """Run one whole job and leave its artifacts in `directory`.

    ``result.json`` is removed first and written last: where it exists, the job is complete.

    Args:
        spec: What to do.
        directory: Folder of the artifacts; made if it is missing.
        progress: Told how far the job is.
        should_stop: Asked now and then whether to stop.
        timer: Times files on the device that `spec` names; without, this machine times them.
        cluster: Evaluates the candidates; without, the one that ``AUTOPRUNE_CLUSTER`` names, or this machine.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or a result that does not hold what it claims.
        Cancelled: `should_stop` said so.

    """
    started = time.monotonic()
    job = start_job(
        spec,
        directory,
        results=(FILE, REPORT, EVIDENCE),
        progress=progress,
        should_stop=should_stop,
        timer=timer,
        cluster=cluster,
    )
    begin_log(job)
    with Journal.open(directory / JOURNAL) as journal, pool_for(job, searches=len(spec.policies)) as pool:
        found: dict[str, Found] = {}
        if job.earlier is not None:
            job.earlier.hand_over(journal)
        for name in spec.policies:
            found[name] = search_policy(job, name, journal, pool, found)
        evidence = job_evidence(spec, job.evaluator, job.inputs.precision, found, job.earlier)
        evidence.save(directory / EVIDENCE)
        check = latency_check(job, journal, pool)
        held = holding(
            found,
            check,
            lambda name, done: job.say(
                "measure", done, len(found), "latency of the candidates that come first", policy=name
            ),
        )
    finalists = [exported(job, name, search, recovered(job, name, search)) for name, search in held.items()]
    score = Scorer(job.inputs.splits.report, job.inputs.problem.network.module)
    outcomes = measured_outcomes(job, finalists, check, score)
    fronts = {name: exported_front(job, name, search, check, score) for name, search in held.items()}
    outcomes = [fronts[each.policy].beside(each) for each in outcomes]
    left_out = [text for front in fronts.values() for text in front.too_slow]
    left_out += [
        f"policy {name!r} is left out: its candidates, timed whole, are too slow for the budget"
        for name in found
        if name not in held
    ]
    result = job_result(
        spec,
        job.inputs,
        outcomes,
        int8=None if job.int8 is None else int8_view(job.int8, score),
        warnings=[*left_out, *finalist_warnings(job, finalists, check)],
        search=job.evaluator.unpruned(),
        report=score(job.inputs.problem.network.module),
        seconds=time.monotonic() - started,
        continued=None if job.earlier is None else job.earlier.view(evidence),
    )
    write_report(result, directory / REPORT)
    write_whole(directory / FILE, result.model_dump_json(indent=1).encode())
    remove_log(directory)
    forget_checkpoints(directory)
    job.say("done", 1, 1, "finished")
    return result
