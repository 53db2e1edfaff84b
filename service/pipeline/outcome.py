"""What a job says in the end: certificates, the outcome of every policy, and the one result."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import fx

from autoprune.certificate import Certificate, versions
from autoprune.costs.budget import Budget
from autoprune.evaluation.metrics import Scores
from autoprune.files import file_sha256, write_whole
from autoprune.latency_tables.measure import Latency
from autoprune.pruning.plan import Plan
from autoprune.search.driver import SearchResult
from autoprune.search.searcher import Trial
from autoprune.service.pipeline.inputs import Inputs, quality_warnings
from autoprune.service.pipeline.inspection import group_views
from autoprune.service.pipeline.latency_check import latency_limit, share_of_limit
from autoprune.service.pipeline.quantized import Quantized
from autoprune.service.pipeline.searchers import Found
from autoprune.service.results.job_result import (
    AmcView,
    ContinuedView,
    FrontPoint,
    Int8View,
    JobResult,
    PolicyOutcome,
    PruningNetView,
    ScoresView,
    ScreeningView,
    TrialView,
)
from autoprune.service.specs.amc_options import AGENT_ARTIFACT
from autoprune.service.specs.job_spec import JobSpec

#: The files of every policy, by kind.
FILES = {
    "onnx": "model.onnx",
    "plan": "plan.json",
    "weights": "weights.safetensors",
    "certificate": "certificate.json",
}


@dataclass(frozen=True, slots=True)
class Recovered:
    """A search's winner after its recovery, before it is exported.

    Attributes:
        plan: What it keeps.
        before: The pruned network as the search scored it, or after the refit.
        search_refit: Scores of `before` on the search split where the refit helped; else None.
        unsolved: Layers that keep their trained weights because their equations are singular.
        finetuned: The same after fine-tuning; None without.
        search_finetuned: Scores of `finetuned` on the search split.
        masked_error: Difference between masked and pruned network.

    """

    plan: Plan
    before: fx.GraphModule
    search_refit: Scores | None
    unsolved: tuple[str, ...]
    finetuned: fx.GraphModule | None
    search_finetuned: Scores | None
    masked_error: float

    @property
    def final(self) -> fx.GraphModule:
        """The network that is delivered."""
        return self.finetuned or self.before


@dataclass(frozen=True, slots=True)
class Finalist:
    """What one policy ends with, before the report split is opened.

    Attributes:
        policy: Its name.
        folder: Where its files lie.
        search: What it found.
        amc: How its search went, of policy amc.
        pruningnet: What its search went by, of policy metapruning.
        recovered: The winner after its recovery.
        parity_error: Difference between the exported file and the network.
        parity_images: Images that was measured on.
        cost: Cost counted in the exported file.
        int8: Its int8 file; None without.

    """

    policy: str
    folder: Path
    search: SearchResult
    amc: AmcView | None
    pruningnet: PruningNetView | None
    recovered: Recovered
    parity_error: float
    parity_images: int
    cost: dict[str, int]
    int8: Quantized | None = None

    @property
    def onnx(self) -> Path:
        """The exported file."""
        return self.folder / FILES["onnx"]

    @property
    def deployed(self) -> Path:
        """The file that is timed and that a budget of latency speaks of: in int8 where there is such a file."""
        return self.onnx if self.int8 is None else self.int8.path


@dataclass(frozen=True, slots=True)
class Timed:
    """Latencies of the unpruned and the pruned file, timed in turn, both in int8 where the job exports int8.

    Attributes:
        unpruned: Of the unpruned network.
        pruned: Of the finalist.
        on_device: Whether they were timed on the device of the job's latency table.
        pruned_fp32: Of the finalist's float32 file, where the others are in int8.

    """

    unpruned: Latency
    pruned: Latency
    on_device: bool
    pruned_fp32: Latency | None = None

    def to_dict(self) -> dict[str, object]:
        """Return what a certificate says about them."""
        fp32 = {} if self.pruned_fp32 is None else {"pruned_fp32": self.pruned_fp32.to_dict()}
        return {
            "precision": "int8" if fp32 else "fp32",
            "pruned": self.pruned.to_dict(),
            "unpruned": self.unpruned.to_dict(),
            **fp32,
            # medians of a busy machine differ up to sevenfold, 10th percentiles hardly
            "speedup": self.unpruned.p10_ms / self.pruned.p10_ms,
        }


def policy_outcome(
    finalist: Finalist,
    spec: JobSpec,
    inputs: Inputs,
    timed: Timed,
    *,
    score: Callable[[fx.GraphModule | Path], Scores],
) -> PolicyOutcome:
    """Write a finalist's certificate, and score it with `score`, which opens the report split."""
    certificate = _certified(finalist, spec, inputs, timed)
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
    certificate = _certified(finalist, spec, inputs, timed)
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


def _latency_budget(spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Say which table latency was predicted from, and how the measured latency stands to its budget."""
    table, limit = inputs.latencies, latency_limit(Budget.parse(spec.budget))
    if table is None:
        return {}
    facts = {"device": table.conditions.device, "table": table.sha256, "measured_on_device": timed.on_device}
    if limit is None or not timed.on_device:
        return facts
    return {**facts, "share_of_limit": share_of_limit(limit, timed.unpruned, timed.pruned)}


def _artifacts(finalist: Finalist, folder: str) -> dict[str, str]:
    """Return a finalist's files by kind, within the job's folder."""
    int8 = {} if finalist.int8 is None else {"int8": f"{folder}/{finalist.int8.path.name}"}
    return {kind: f"{folder}/{file}" for kind, file in FILES.items()} | int8


def _certified(finalist: Finalist, spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Write a finalist's certificate, and return it."""
    certificate = _certificate(finalist, spec, inputs, timed)
    write_whole(finalist.folder / FILES["certificate"], json.dumps(certificate, indent=1).encode())
    return certificate


def _certificate(finalist: Finalist, spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Put together what was measured on the exported file."""
    problem, splits = inputs.problem, inputs.splits
    return Certificate(
        budget=spec.budget,
        limits=dict(problem.limits),
        cost=finalist.cost,
        cost_unpruned=problem.cost(problem.costs.full()),
        file_bytes=finalist.onnx.stat().st_size,
        onnx_sha256=file_sha256(finalist.onnx),
        plan_sha256=file_sha256(finalist.folder / FILES["plan"]),
        model_sha256=problem.model_sha256,
        parity_error=finalist.parity_error,
        parity_images=finalist.parity_images,
        masked_error=finalist.recovered.masked_error,
        latency={**_latency_budget(spec, inputs, timed), **timed.to_dict()},
        splits={"fit": splits.fit.sha256, "search": splits.search.sha256, "report": splits.report.sha256},
        seed=spec.seed,
        versions=versions(),
        int8=None if finalist.int8 is None else finalist.int8.to_dict(),
    ).to_dict()
