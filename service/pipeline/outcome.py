"""What a job says in the end: the outcome of every policy, and the one result."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import fx

from autoprune.evaluation.metrics import Scores
from autoprune.search.driver import SearchResult
from autoprune.search.searcher import Trial
from autoprune.service.pipeline.certifying import certified
from autoprune.service.pipeline.finalist import FILES, Finalist, Recovered, Timed
from autoprune.service.pipeline.inputs import Inputs, quality_warnings
from autoprune.service.pipeline.inspection import group_views
from autoprune.service.pipeline.quantized import Quantized
from autoprune.service.pipeline.searchers import Found
from autoprune.service.results.job_result import (
    ContinuedView,
    FrontPoint,
    Int8View,
    JobResult,
    PolicyOutcome,
    ScoresView,
    ScreeningView,
    TrialView,
)
from autoprune.service.specs.amc_options import AGENT_ARTIFACT
from autoprune.service.specs.job_spec import JobSpec


def policy_outcome(
    finalist: Finalist,
    spec: JobSpec,
    inputs: Inputs,
    timed: Timed,
    *,
    score: Callable[[fx.GraphModule | Path], Scores],
) -> PolicyOutcome:
    """Write a finalist's certificate, and score it with `score`, which opens the report split."""
    certificate = certified(finalist, spec, inputs, timed)
    best, screening = finalist.search.best, finalist.search.screening
    recovered, tuned, int8 = finalist.recovered, finalist.recovered.finetuned, finalist.int8
    artifacts = _artifacts(finalist, finalist.policy)
    if finalist.amc is not None:
        artifacts["agent"] = AGENT_ARTIFACT
    return PolicyOutcome(
        policy=finalist.policy,
        evaluations=spent(finalist.search, inputs),
        cached=finalist.search.cached,
        seconds=finalist.search.seconds,
        kept=dict(zip(inputs.problem.names, best.kept, strict=True)),
        cost=finalist.cost,
        search=view(best.scores),
        search_refit=None if recovered.search_refit is None else view(recovered.search_refit),
        search_finetuned=None if recovered.search_finetuned is None else view(recovered.search_finetuned),
        report=view(score(recovered.before)),
        report_finetuned=None if tuned is None else view(score(tuned)),
        trials=trial_views(finalist.search.trials),
        screening=None if screening is None else ScreeningView(**asdict(screening)),
        front=[trial.number for trial in finalist.search.front],
        amc=finalist.amc,
        pruningnet=finalist.pruningnet,
        int8=None if int8 is None else int8_view(int8, score),
        certificate=certificate,
        artifacts=artifacts,
    )


def front_point(
    finalist: Finalist,
    spec: JobSpec,
    inputs: Inputs,
    timed: Timed,
    *,
    folder: str,
    score: Callable[[fx.GraphModule | Path], Scores],
) -> FrontPoint:
    """Write the certificate of a front's plan, and score it with `score`; `folder` is its own within the job's."""
    certificate = certified(finalist, spec, inputs, timed)
    best, recovered, int8 = finalist.search.best, finalist.recovered, finalist.int8
    return FrontPoint(
        trial=best.number,
        kept=dict(zip(inputs.problem.names, best.kept, strict=True)),
        cost=finalist.cost,
        search=view(best.scores),
        search_refit=None if recovered.search_refit is None else view(recovered.search_refit),
        report=view(score(recovered.before)),
        int8=None if int8 is None else int8_view(int8, score),
        certificate=certificate,
        artifacts=_artifacts(finalist, folder),
    )


def job_result(
    spec: JobSpec,
    inputs: Inputs,
    outcomes: list[PolicyOutcome],
    *,
    int8: Int8View | None = None,
    warnings: Sequence[str],
    search: Scores,
    report: Scores,
    seconds: float,
    continued: ContinuedView | None,
) -> JobResult:
    """Put the whole job into one document; the best policy is chosen on the search split."""
    problem = inputs.problem

    def quality(outcome: PolicyOutcome) -> tuple[float, float]:
        scores = Scores.from_dict((outcome.search_finetuned or outcome.search_pruned).model_dump())
        return scores.objective, -scores.regret

    return JobResult(
        model=spec.model,
        architecture=spec.architecture,
        model_sha256=problem.model_sha256,
        dataset=spec.dataset,
        normalization=inputs.normalization,
        input_shape=list(problem.network.input_shape),
        budget=spec.budget,
        limits=dict(problem.limits),
        cost=problem.cost(problem.costs.full()),
        groups=group_views(problem.network, problem.all_groups),
        decision_groups=list(problem.names),
        search=view(search),
        report=view(report),
        int8=int8,
        outcomes=outcomes,
        best=max(outcomes, key=quality).policy,
        warnings=[*inputs.warnings, *warnings, *quality_warnings(search, problem.network.output_shape[0])],
        seed=spec.seed,
        seconds=seconds,
        continued=continued,
    )


def final_scores(search: Found, winner: Recovered) -> Scores:
    """Return the scores on the search split of the network that a search ends with."""
    return winner.search_finetuned or winner.search_refit or search.result.best.scores


def trial_views(trials: Sequence[Trial]) -> list[TrialView]:
    """Turn trials into their JSON form."""
    return [
        TrialView(
            number=trial.number,
            objective=trial.objective,
            cost=dict(trial.cost),
            probe=trial.probe,
            screened_out=trial.screened_out,
            proxied=trial.proxied,
            spent=trial.spent,
            seconds=trial.seconds,
        )
        for trial in trials
    ]


def spent(search: SearchResult, inputs: Inputs) -> int:
    """Return what a search cost, in evaluations on all search images, rounded up."""
    record, whole = search.screening, len(inputs.splits.search)
    if record is None:
        return len(search.trials)
    return math.ceil(record.full + (record.pairs + record.screened_out) * record.images / whole)


def int8_view(made: Quantized, score: Callable[[fx.GraphModule | Path], Scores]) -> Int8View:
    """Turn an int8 file's scores into their JSON form; `score` opens the report split."""
    return Int8View(
        search=view(made.search),
        search_fp32=view(made.search_fp32),
        report=view(score(made.path)),
        calibration_images=made.calibration_images,
    )


def view(scores: Scores) -> ScoresView:
    """Turn scores into their JSON form."""
    return ScoresView(**scores.to_dict())


def _artifacts(finalist: Finalist, folder: str) -> dict[str, str]:
    """Return a finalist's files by kind, within the job's folder."""
    int8 = {} if finalist.int8 is None else {"int8": f"{folder}/{finalist.int8.path.name}"}
    return {kind: f"{folder}/{file}" for kind, file in FILES.items()} | int8
