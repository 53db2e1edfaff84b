"""One job, from model file to certified ONNX: load, search with every policy, recover, export, certify, report.

A job that was killed is run again with the same arguments in the same folder: the journal there answers what was
already evaluated, everything else is recomputed from the seed, and the result is the same. A comparison
(:mod:`autoprune.service.comparisons.run`) takes the same steps for several seeds.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import fx

from autoprune.certificate import export_checked
from autoprune.costs.budget import Budget
from autoprune.costs.quantities import QUANTITIES
from autoprune.errors import Cancelled, ExportError
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.formats.weights import save_weights
from autoprune.latency_tables.measure import measure_side_by_side
from autoprune.pruning.verify import verify
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.answers import Answers
from autoprune.search.driver import run_search
from autoprune.search.exact import Exact
from autoprune.search.journal import Journal
from autoprune.search.netadapt import NetAdapt
from autoprune.search.pool import EvaluationPool
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from autoprune.service.pipeline.continuing import first_policies, job_evidence
from autoprune.service.pipeline.fronts import ExportedFront, cost_range, spread, with_whole_front
from autoprune.service.pipeline.job import PARITY_IMAGES, Job, pool_for, start_job
from autoprune.service.pipeline.job_files import EVIDENCE, JOURNAL
from autoprune.service.pipeline.latency_check import (
    NOISE_IMAGES,
    LatencyCheck,
    Timer,
    holding,
    latency_limit,
    not_measured,
)
from autoprune.service.pipeline.outcome import (
    FILES,
    Finalist,
    Recovered,
    front_point,
    int8_view,
    job_result,
    policy_outcome,
    write_text,
)
from autoprune.service.pipeline.pruningnet_stage import Proxy, trained_proxy
from autoprune.service.pipeline.quantized import calibration_images
from autoprune.service.pipeline.recovery import Scorer, finetuned, refitted
from autoprune.service.pipeline.searchers import Found, amc_left, job_searcher
from autoprune.service.pipeline.studies import search_log
from autoprune.service.pipeline.timing import timed_finalists
from autoprune.service.reports.job_report import write_report
from autoprune.service.results.job_result import FrontPoint, JobResult, PolicyOutcome
from autoprune.service.results.wording import BASELINES
from autoprune.service.specs.amc_options import BATCH
from autoprune.service.specs.front_options import FOLDER
from autoprune.service.specs.job_spec import JobSpec, Progress
from autoprune.service.specs.pruningnet_options import METAPRUNING

RESULT, REPORT = "result.json", "report.html"

#: What a search has trained so far; gone when the job is complete.
CHECKPOINTS = "checkpoints"


def run_job(
    spec: JobSpec,
    directory: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    timer: Timer | None = None,
) -> JobResult:
    """Run one whole job and leave its artifacts in `directory`.

    ``result.json`` is removed first and written last: where it exists, the job is complete.

    Args:
        spec: What to do.
        directory: Folder of the artifacts; made if it is missing.
        progress: Told how far the job is.
        should_stop: Asked now and then whether to stop.
        timer: Times files on the device that `spec` names; without, this machine times them.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or a result that does not hold what it claims.
        Cancelled: `should_stop` said so.

    """
    started = time.monotonic()
    job = start_job(
        spec, directory, results=(RESULT, REPORT, EVIDENCE), progress=progress, should_stop=should_stop, timer=timer
    )
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
    write_text(directory / RESULT, result.model_dump_json(indent=1))
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    job.say("done", 1, 1, "finished")
    return result


def search_policy(job: Job, policy: str, journal: Journal, pool: EvaluationPool, before: Mapping[str, Found]) -> Found:
    """Search with one policy; `before` is what the others found so far."""
    spec, problem = job.search_spec, job.inputs.problem
    costs = cost_range(spec, problem, policy)
    warm = spec.warm_start and policy not in (*BASELINES, Exact.name) and costs is None  # a front warms itself up
    proxy = _proxy(job, journal, pool) if policy == METAPRUNING else None
    evaluations = spec.evaluations - (proxy is not None)  # the last one is its winner's
    started = time.monotonic()
    first = [exact_policy(problem)] if warm else []
    first += first_policies(problem, policy, job.earlier)[: max(0, evaluations - 1 - warm)]
    own = job_searcher(
        spec, problem, policy, evaluations=evaluations - len(first), before=before, directory=job.directory
    )
    searcher = WarmStart(own, first) if first else own
    thought_s = time.monotonic() - started + (0 if proxy is None else proxy.seconds)
    with search_log(job, policy, costs) as log:

        def progress(done: int, total: int, trial: Trial) -> None:
            log(trial)
            job.say("search", done, total, "candidates evaluated", policy)

        result = run_search(
            problem,
            _trainer(job, policy) or job.evaluator if proxy is None else proxy.evaluator,
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=BATCH,
            pool=pool,
            screening=None if spec.screening_images is None else Screening(spec.screening_images),
            thought_s=thought_s,
            progress=progress,
            should_stop=job.should_stop,
        )
    if proxy is not None:
        return proxy.found(result, Answers(job.evaluator, journal, pool, job.should_stop))
    left = amc_left(spec, own, result, before, job.directory, given=len(first))
    return Found(with_whole_front(result, costs), left)


def _proxy(job: Job, journal: Journal, pool: EvaluationPool) -> Proxy:
    """Return what policy metapruning scores its candidates with."""
    return trained_proxy(
        job.search_spec,
        job.inputs,
        job.evaluator,
        checkpoints=job.directory / CHECKPOINTS,
        journal=journal,
        pool=pool,
        report=job.progress,
        should_stop=job.should_stop,
    )


def _trainer(job: Job, policy: str) -> TunedEvaluator | None:
    """Return what scores the proposals of a policy that trains them; None for all others."""
    if policy != NetAdapt.name or job.spec.short_term_steps == 0:
        return None
    return TunedEvaluator(
        job.evaluator,
        job.inputs.splits.for_search(),
        steps=job.spec.short_term_steps,
        checkpoints=job.directory / CHECKPOINTS / policy,
    )


def is_trained(job: Job, policy: str) -> bool:
    """Tell whether a policy's proposals are trained: then equal plans may be different networks."""
    return _trainer(job, policy) is not None


def _winner(job: Job, policy: str, best: Trial) -> fx.GraphModule:
    """Return the network of a trial as the search scored it."""
    problem, trainer = job.inputs.problem, _trainer(job, policy)
    plan = problem.plan(best.policy)
    if trainer is None:
        return job.evaluator.candidate(plan)
    return trainer.candidate(PathPlan.of(plan, [problem.plan(parent) for parent in best.proposal.parents]))


def latency_check(job: Job, journal: Journal, pool: EvaluationPool) -> LatencyCheck | None:
    """Return what times candidates whole; None where latency is not limited, or the device is out of reach."""
    table, limit = job.inputs.latencies, latency_limit(Budget.parse(job.spec.budget))
    if table is None or limit is None or not job.is_timed_on_device:
        return None
    answers = Answers(job.evaluator, journal, pool, job.should_stop)
    timer = job.timer or measure_side_by_side
    noise = calibration_images(job.inputs.splits, NOISE_IMAGES) if job.spec.int8 else None
    return LatencyCheck(limit, job.deployed_unpruned, answers, table.conditions.threads, timer, job.spec.opset, noise)


def recovered(job: Job, policy: str, search: Found, *, tune: bool = True) -> Recovered:
    """Refit the winner of a policy's search and, `tune`, fine-tune it, as the job asks for."""
    spec, inputs, found = job.spec, job.inputs, search.result
    problem, splits = inputs.problem, inputs.splits
    plan = problem.plan(found.best.policy)
    masked_error = verify(problem.network, problem.all_groups, plan, splits.search.inputs[:2])
    better = None
    if spec.refit:
        better = refitted(
            job.evaluator,
            found.best,
            splits,
            seed=spec.seed,
            policy=policy,
            report=job.progress,
            should_stop=job.should_stop,
        )
    before, refit_scores = better or (_winner(job, policy, found.best), None)
    unsolved = job.evaluator.unsolved(plan)
    tuned = None
    if tune and spec.finetune_epochs > 0:
        tuned = finetuned(
            before,
            problem.network.module,
            splits,
            spec,
            precision=inputs.precision,
            policy=policy,
            report=job.progress,
            should_stop=job.should_stop,
        )
    return Recovered(
        plan=plan,
        before=before,
        search_refit=refit_scores,
        unsolved=unsolved,
        finetuned=tuned,
        search_finetuned=None if tuned is None else job.evaluator.score(tuned),
        masked_error=masked_error,
    )


def exported(job: Job, policy: str, search: Found, winner: Recovered, folder: Path | None = None) -> Finalist:
    """Export a policy's winner, and check the file; in jobs that export int8, quantise it too.

    Its files go into `folder`, or that of the policy.
    """
    spec, problem = job.spec, job.inputs.problem
    folder = folder or job.directory / policy
    folder.mkdir(parents=True, exist_ok=True)
    winner.plan.save(folder / FILES["plan"])
    save_weights(winner.final, folder / FILES["weights"])
    images = job.inputs.splits.search.inputs[:PARITY_IMAGES]
    cost, parity_error = export_checked(
        winner.final,
        folder / FILES["onnx"],
        input_shape=problem.network.input_shape,
        images=images,
        limits={quantity: most for quantity, most in problem.limits.items() if quantity in QUANTITIES},
        opset=spec.opset,
    )
    predicted = problem.cost(search.result.best.kept)
    if cost["macs"] != predicted["macs"]:  # parameters may differ by what older operator sets write out as constants
        raise ExportError(
            f"policy {policy!r}: the exported file has {cost['macs']:,} MACs, its plan {predicted['macs']:,}"
        )
    cost |= {quantity: value for quantity, value in predicted.items() if quantity not in QUANTITIES}
    return Finalist(
        policy=policy,
        folder=folder,
        search=search.result,
        amc=search.amc,
        pruningnet=search.pruningnet,
        recovered=winner,
        parity_error=parity_error,
        parity_images=len(images),
        cost=cost,
        int8=job.quantized(folder / FILES["onnx"]),
    )


def measured_outcomes(
    job: Job,
    finalists: Sequence[Finalist],
    check: LatencyCheck | None,
    score: Callable[[fx.GraphModule | Path], Scores],
) -> list[PolicyOutcome]:
    """Time the exported files and certify them; then open the report split, once, with `score`."""
    job.say("measure", 0, 1, "latency in onnxruntime")
    timed = timed_finalists(job, finalists, check)
    outcomes: list[PolicyOutcome] = []
    for finalist, each in zip(finalists, timed, strict=True):
        job.say("report", len(outcomes) + 1, len(finalists) + 1, "scoring on the report split", finalist.policy)
        outcomes.append(policy_outcome(finalist, job.spec, job.inputs, each, score=score))
    return outcomes


def exported_front(
    job: Job,
    policy: str,
    search: Found,
    check: LatencyCheck | None,
    score: Callable[[fx.GraphModule | Path], Scores],
) -> ExportedFront:
    """Export plans of the front that a policy looked for, each as its winner but for fine-tuning.

    Those that are too slow for the budget when they are timed whole are left out.

    Raises:
        Cancelled: The job was stopped.

    """
    front = job.directory / policy / FOLDER
    shutil.rmtree(front, ignore_errors=True)
    costs = cost_range(job.spec, job.inputs.problem, policy)
    if costs is None or job.spec.front is None:
        return ExportedFront()
    trials = spread(search.result.front, costs.quantity, job.spec.front.points)
    plans = []
    for number, trial in enumerate(trials, start=1):
        if job.should_stop():
            raise Cancelled("stopped while a front was exported; evaluations are kept, the export starts over")
        job.say("export", number, len(trials), "plans of the front", policy)
        one = replace(search, result=replace(search.result, best=trial))
        plans.append(exported(job, policy, one, recovered(job, policy, one, tune=False), front / f"{number:02}"))
    points: list[FrontPoint] = []
    slow: list[str] = []
    for plan, timed in zip(plans, timed_finalists(job, plans, None), strict=True):
        folder = plan.folder.relative_to(job.directory).as_posix()
        try:
            pair = None if check is None else check.confirmed(plan.deployed, timed.unpruned, timed.pruned)
        except ExportError:
            slow.append(f"{folder} is left out: timed whole, it is too slow for the budget")
            shutil.rmtree(plan.folder)
            continue
        held = timed if pair is None else replace(timed, unpruned=pair[0], pruned=pair[1])
        points.append(front_point(plan, job.spec, job.inputs, held, folder=folder, score=score))
    return ExportedFront(costs.quantity, tuple(points), tuple(slow))


def finalist_warnings(job: Job, finalists: Sequence[Finalist], check: LatencyCheck | None) -> list[str]:
    """Return what the reader of the outcomes should know about them."""
    warnings = [
        f"policy {each.policy!r}: the equations of {', '.join(unsolved)} are singular; their weights stay"
        for each in finalists
        if (unsolved := each.recovered.unsolved)
    ]
    warnings += [
        f"policy {each.policy!r}: its PruningNet cannot be trusted to rank candidates: {each.pruningnet.audit.failure}"
        for each in finalists
        if each.pruningnet is not None and each.pruningnet.audit is not None and each.pruningnet.audit.failure
    ]
    limit = latency_limit(Budget.parse(job.spec.budget))
    if limit is not None and job.inputs.latencies is not None and check is None:
        warnings.append(not_measured(limit, job.inputs.latencies))
    return warnings
