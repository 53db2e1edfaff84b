"""What a job delivers of a search: its winner recovered, exported, timed and certified; and plans of its front."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import fx

from autoprune.certificate import export_checked
from autoprune.costs.budget import Budget
from autoprune.costs.quantities import QUANTITIES
from autoprune.errors import Cancelled, ExportError
from autoprune.evaluation.metrics import Scores
from autoprune.formats.weights import save_weights
from autoprune.pruning.verify import verify
from autoprune.recovery.checkpoint import Checkpoint
from autoprune.service.pipeline.finalist import FILES, Finalist, Recovered
from autoprune.service.pipeline.fronts import ExportedFront, cost_range, spread
from autoprune.service.pipeline.job import PARITY_IMAGES, Job
from autoprune.service.pipeline.job_files import CHECKPOINTS
from autoprune.service.pipeline.latency_check import (
    LatencyCheck,
    latency_limit,
    not_measured,
)
from autoprune.service.pipeline.outcome import front_point, policy_outcome
from autoprune.service.pipeline.recovery import finetuned, refitted
from autoprune.service.pipeline.searchers import Found
from autoprune.service.pipeline.searching import winner
from autoprune.service.pipeline.timing import timed_finalists
from autoprune.service.results.job_result import FrontPoint, PolicyOutcome
from autoprune.service.specs.front_options import FOLDER

#: Points of accuracy, as a share, that fine-tuning may lose on the search images without a warning.
LOST = 0.01


def recovered(job: Job, policy: str, search: Found, *, tune: bool = True) -> Recovered:
    """Refit the winner of a policy's search and, `tune`, fine-tune it, as the job asks for, or go on with that."""
    spec, inputs, found = job.spec, job.inputs, search.result
    problem, splits = inputs.problem, inputs.splits
    plan = problem.plan(found.best.policy)
    masked_error = verify(problem.network, problem.all_groups, plan, splits.search.inputs[:2])
    checkpoints = job.directory / CHECKPOINTS / policy
    better = None
    if spec.refit:
        better = refitted(
            job.evaluator,
            found.best,
            splits,
            seed=spec.seed,
            policy=policy,
            checkpoints=checkpoints,
            report=job.progress,
            should_stop=job.should_stop,
        )
    before, refit_scores = better or (winner(job, policy, found.best), None)
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
            checkpoint=Checkpoint(checkpoints / "finetune.safetensors"),
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
            raise Cancelled("stopped while a front was exported; what was solved is kept, the export starts over")
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
    warnings += [text for each in finalists if (text := _lost_by_training(each)) is not None]
    limit = latency_limit(Budget.parse(job.spec.budget))
    if limit is not None and job.inputs.latencies is not None and check is None:
        warnings.append(not_measured(limit, job.inputs.latencies))
    return warnings


def _lost_by_training(finalist: Finalist) -> str | None:
    """Say so where fine-tuning made a network worse on the search images; None where it did not, or there was none."""
    recovered = finalist.recovered
    after = recovered.search_finetuned
    before = recovered.search_refit or finalist.search.best.scores
    if after is None or after.objective >= before.objective - LOST:
        return None
    return (
        f"policy {finalist.policy!r}: fine-tuning took its network from {before.objective:.1%} to "
        f"{after.objective:.1%} on the search images; train on more images, for longer or at a lower rate, or leave "
        "fine-tuning out"
    )
