"""One job, from model file to certified ONNX: load, search with every policy, recover, export, certify, report.

A job that was killed is run again with the same arguments in the same folder: the journal there answers what was
already evaluated, everything else is recomputed from the seed, and the result is the same.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx

from autoprune.certificate import export_checked
from autoprune.costs.budget import Budget
from autoprune.costs.quantities import QUANTITIES
from autoprune.errors import ExportError
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES, Evaluator
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.formats.weights import save_weights
from autoprune.latency_tables.measure import measure_side_by_side
from autoprune.pruning.verify import verify
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.exact import Exact
from autoprune.search.journal import Journal
from autoprune.search.netadapt import NetAdapt
from autoprune.search.pool import EvaluationPool, SerialPool
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from autoprune.service.amc_options import BATCH
from autoprune.service.comparison import BASELINES
from autoprune.service.inputs import Inputs, load_inputs
from autoprune.service.latency_check import LatencyCheck, Timer, latency_limit, measured_here, not_measured
from autoprune.service.outcome import FILES, Finalist, Timed, job_result, policy_outcome, write_text
from autoprune.service.recovery import finetuned, refitted, scorer
from autoprune.service.report import write_report
from autoprune.service.result import JobResult, PolicyOutcome
from autoprune.service.searchers import Found, amc_left, check_searchers, job_searcher
from autoprune.service.spec import JobSpec, Progress

#: Images compared between the exported file and the pruned network.
PARITY_IMAGES = 64

#: Multiply-accumulates of all evaluations (a minute or so) beyond which worker processes repay their start.
LONG_SEARCH_MACS = 2e12

RESULT, REPORT, JOURNAL = "result.json", "report.html", "journal.sqlite"

#: What a search has trained so far; gone when the job is complete.
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class _Job:
    """What every step of one job works with."""

    spec: JobSpec
    inputs: Inputs
    evaluator: Evaluator
    directory: Path
    progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    timer: Timer | None

    def say(self, stage: str, done: int, total: int, message: str, policy: str | None = None) -> None:
        """Report progress."""
        self.progress(Progress(stage=stage, done=done, total=total, message=message, policy=policy))


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
    inputs = load_inputs(spec, progress)
    directory.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, REPORT):
        (directory / name).unlink(missing_ok=True)
    for stale in directory.glob(f"*/{FILES['certificate']}"):  # never beside a model file that it was not measured on
        stale.unlink()
    evaluator = Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision)
    check_searchers(spec, inputs.problem)
    job = _Job(spec, inputs, evaluator, directory, progress, should_stop, timer)
    network = inputs.problem.network
    unpruned = directory / "unpruned.onnx"
    images = inputs.splits.search.inputs[:PARITY_IMAGES]
    export_checked(
        network.module, unpruned, input_shape=network.input_shape, images=images, limits={}, opset=spec.opset
    )
    with Journal.open(directory / JOURNAL) as journal, _pool(job) as pool:
        found: dict[str, Found] = {}
        for name in spec.policies:
            found[name] = _search(job, name, journal, pool, found)
    check = _latency_check(job, unpruned)
    held = _holding(job, found, check)
    finalists = [_finalist(job, name, search) for name, search in held.items()]
    files = [unpruned, *(finalist.onnx for finalist in finalists)]
    job.say("measure", 0, 1, "latency in onnxruntime")
    threads = 1 if inputs.latencies is None else inputs.latencies.conditions.threads
    base, *latencies = (timer or measure_side_by_side)(files, input_shape=network.input_shape, threads=threads)
    job.say("report", 0, len(finalists) + 1, "scoring on the report split")
    score = scorer(inputs.splits.report, network.module)
    outcomes: list[PolicyOutcome] = []
    for finalist, latency in zip(finalists, latencies, strict=True):
        job.say("report", len(outcomes) + 1, len(finalists) + 1, "scoring on the report split", finalist.policy)
        pair = (base, latency) if check is None else check.confirmed(finalist.onnx, base, latency)
        timed = Timed(*pair, on_device=_is_timed_on_device(job))
        outcomes.append(policy_outcome(finalist, spec, inputs, timed, score=score))
    warnings = [
        f"policy {name!r} is left out: its candidates, timed whole, are too slow for the budget"
        for name in found
        if name not in held
    ]
    warnings += [
        f"policy {each.policy!r}: the equations of {', '.join(each.unsolved)} are singular; their weights stay"
        for each in finalists
        if each.unsolved
    ]
    limit = latency_limit(Budget.parse(spec.budget))
    if limit is not None and inputs.latencies is not None and check is None:
        warnings.append(not_measured(limit, inputs.latencies))
    result = job_result(
        spec,
        inputs,
        outcomes,
        warnings=warnings,
        search=evaluator.unpruned(),
        report=score(network.module),
        seconds=time.monotonic() - started,
    )
    write_report(result, directory / REPORT)
    write_text(directory / RESULT, result.model_dump_json(indent=1))
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    job.say("done", 1, 1, "finished")
    return result


@contextmanager
def _pool(job: _Job) -> Iterator[EvaluationPool]:
    """Lend what evaluates the job's candidates: this process, or several."""
    spec = job.spec
    workers = spec.workers or _worth_starting(job)
    if workers == 1:
        yield SerialPool(threads=spec.threads)
        return
    from autoprune.search.local_pool import local_pool  # imports Dask

    job.say("load", 0, 0, f"starting {workers} worker processes")
    with local_pool(workers, threads=spec.threads) as pool:
        yield pool


def _worth_starting(job: _Job) -> int:
    """Return one worker per core where the searches will take minutes, else 1."""
    problem, spec = job.inputs.problem, job.spec
    images = job.evaluator.search_images + RECALIBRATION_IMAGES
    macs = problem.cost(problem.costs.full())["macs"] * images * spec.evaluations * len(spec.policies)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(BATCH, cores // spec.threads)) if macs > LONG_SEARCH_MACS else 1


def _search(job: _Job, policy: str, journal: Journal, pool: EvaluationPool, before: Mapping[str, Found]) -> Found:
    """Search with one policy; `before` is what the others found so far."""
    spec, problem = job.spec, job.inputs.problem
    warm = spec.warm_start and policy not in (*BASELINES, Exact.name)
    own = job_searcher(
        spec, problem, policy, evaluations=spec.evaluations - warm, before=before, directory=job.directory
    )
    result = run_search(
        problem,
        _trainer(job, policy) or job.evaluator,
        WarmStart(own, [exact_policy(problem)]) if warm else own,
        evaluations=spec.evaluations,
        journal=journal,
        batch=BATCH,
        pool=pool,
        screening=None if spec.screening_images is None else Screening(spec.screening_images),
        progress=lambda done, total, _: job.say("search", done, total, "candidates evaluated", policy),
        should_stop=job.should_stop,
    )
    return Found(result, amc_left(spec, own, result, before, job.directory))


def _trainer(job: _Job, policy: str) -> TunedEvaluator | None:
    """Return what scores the proposals of a policy that trains them; None for all others."""
    if policy != NetAdapt.name or job.spec.short_term_steps == 0:
        return None
    return TunedEvaluator(
        job.evaluator,
        job.inputs.splits.for_search(),
        steps=job.spec.short_term_steps,
        checkpoints=job.directory / CHECKPOINTS / policy,
    )


def _winner(job: _Job, policy: str, best: Trial) -> fx.GraphModule:
    """Return the network of a trial as the search scored it."""
    problem, trainer = job.inputs.problem, _trainer(job, policy)
    plan = problem.plan(best.policy)
    if trainer is None:
        return job.evaluator.candidate(plan)
    return trainer.candidate(PathPlan.of(plan, [problem.plan(parent) for parent in best.proposal.parents]))


def _latency_check(job: _Job, unpruned: Path) -> LatencyCheck | None:
    """Return what times candidates whole; None where latency is not limited, or the device is out of reach."""
    table, limit = job.inputs.latencies, latency_limit(Budget.parse(job.spec.budget))
    if table is None or limit is None or not _is_timed_on_device(job):
        return None
    timer = job.timer or measure_side_by_side
    return LatencyCheck(limit, unpruned, job.evaluator, table.conditions.threads, timer, job.spec.opset)


def _is_timed_on_device(job: _Job) -> bool:
    """Tell whether files are timed on the device that the job's latency table is of."""
    table = job.inputs.latencies
    return table is not None and (job.timer is not None or measured_here(table))


def _holding(job: _Job, found: Mapping[str, Found], check: LatencyCheck | None) -> dict[str, Found]:
    """Return the searches with winners that hold the limit of latency as measured; others are left out.

    Raises:
        ExportError: None is left.

    """
    if check is None:
        return dict(found)
    held: dict[str, Found] = {}
    shares: list[float] = []
    for policy, search in found.items():
        job.say("measure", len(held), len(found), "latency of the candidates that come first", policy)
        holding = check.held(search.result)
        if isinstance(holding, SearchResult):
            held[policy] = replace(search, result=holding)
        else:
            shares.append(holding)
    if not held:
        raise ExportError(
            f"budget {check.limit}: no candidate holds it when it is timed whole, though the table predicted so; the "
            f"fastest took {min(shares):.1%} of what is allowed; "
            "search again while the machine is quiet, measure the table again, or allow more"
        )
    return held


def _finalist(job: _Job, policy: str, search: Found) -> Finalist:
    """Recover a policy's winner, export it, and check the file."""
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
    if spec.finetune_epochs > 0:
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
    final = tuned or before
    folder = job.directory / policy
    folder.mkdir(exist_ok=True)
    plan.save(folder / FILES["plan"])
    save_weights(final, folder / FILES["weights"])
    images = splits.search.inputs[:PARITY_IMAGES]
    cost, parity_error = export_checked(
        final,
        folder / FILES["onnx"],
        input_shape=problem.network.input_shape,
        images=images,
        limits={quantity: most for quantity, most in problem.limits.items() if quantity in QUANTITIES},
        opset=spec.opset,
    )
    predicted = problem.cost(found.best.kept)
    if cost["macs"] != predicted["macs"]:  # parameters may differ by what older operator sets write out as constants
        raise ExportError(
            f"policy {policy!r}: the exported file has {cost['macs']:,} MACs, its plan {predicted['macs']:,}"
        )
    cost |= {quantity: value for quantity, value in predicted.items() if quantity not in QUANTITIES}
    return Finalist(
        policy=policy,
        folder=folder,
        search=found,
        amc=search.amc,
        before=before,
        search_refit=refit_scores,
        unsolved=unsolved,
        finetuned=tuned,
        search_finetuned=None if tuned is None else job.evaluator.score(tuned),
        masked_error=masked_error,
        parity_error=parity_error,
        parity_images=len(images),
        cost=cost,
    )
