"""One job, from model file to certified ONNX: load, search with every policy, recover, export, certify, report.

A job that was killed is run again with the same arguments in the same folder: the journal there answers what was
already evaluated, everything else is recomputed from the seed, and the result is the same.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from autoprune.certificate import Certificate, check_budget, check_parity, file_sha256, versions
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.weights import save_weights
from autoprune.latency_tables.measure import Latency, measure_side_by_side
from autoprune.pruning.plan import Plan
from autoprune.pruning.verify import verify
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.service.inputs import Inputs, load_inputs
from autoprune.service.inspection import group_views
from autoprune.service.recovery import Recovered, recover, score_on
from autoprune.service.report import write_report
from autoprune.service.result import JobResult, PolicyOutcome, ScoresView, TrialView
from autoprune.service.spec import JobSpec, Progress

#: Images compared between the exported file and the pruned network.
PARITY_IMAGES = 64

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Finalist:
    """What one policy ends with, before the report split is opened."""

    policy: str
    search: SearchResult
    plan: Plan
    recovered: Recovered
    masked_error: float
    parity_error: float
    cost: dict[str, int]
    onnx: Path


def run_job(
    spec: JobSpec,
    directory: Path,
    *,
    progress: Report = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> JobResult:
    """Run one whole job and leave its artifacts in `directory`.

    ``result.json`` and ``report.html`` are written last: where they exist, the job is complete.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or a result that does not hold what it claims.
        Cancelled: `should_stop` said so.

    """
    started = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    inputs = load_inputs(spec, progress)
    evaluator = Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision)
    unpruned = directory / "unpruned.onnx"
    export_onnx(
        inputs.problem.network.module, unpruned, input_shape=inputs.problem.network.input_shape, opset=spec.opset
    )
    check_parity(unpruned, inputs.problem.network.module, inputs.splits.search.inputs[:PARITY_IMAGES])
    with Journal.open(directory / "journal.sqlite") as journal:
        finalists = [
            _finalist(name, spec, inputs, evaluator, journal, directory, progress, should_stop)
            for name in spec.policies
        ]
    latencies = _measure([unpruned, *(finalist.onnx for finalist in finalists)], inputs, progress)
    outcomes = [
        _outcome(finalist, spec, inputs, directory, latencies[0], latency, progress)
        for finalist, latency in zip(finalists, latencies[1:], strict=True)
    ]
    result = _result(spec, inputs, evaluator, outcomes, time.monotonic() - started)
    write_report(result, directory / "report.html")
    _write(directory / "result.json", result.model_dump_json(indent=1))
    progress(Progress(stage="done", done=1, total=1, message="finished", policy=None))
    return result


def _finalist(
    name: str,
    spec: JobSpec,
    inputs: Inputs,
    evaluator: Evaluator,
    journal: Journal,
    directory: Path,
    progress: Report,
    should_stop: Callable[[], bool],
) -> _Finalist:
    """Search with one policy, recover its winner, export it and check the file."""
    problem, splits = inputs.problem, inputs.splits

    def searched(done: int, total: int, trial: object) -> None:
        progress(Progress(stage="search", done=done, total=total, message="candidates evaluated", policy=name))

    searcher = make_searcher(name, problem, seed=spec.seed, evaluations=spec.evaluations)
    found = run_search(
        problem,
        evaluator,
        searcher,
        evaluations=spec.evaluations,
        journal=journal,
        progress=searched,
        should_stop=should_stop,
    )
    plan = problem.plan(found.best.policy)
    masked_error = verify(problem.network, problem.all_groups, plan, splits.search.inputs[:2])
    recovered = recover(problem, plan, splits, spec, name, progress, should_stop)
    folder = directory / name
    folder.mkdir(exist_ok=True)
    plan.save(folder / "plan.json")
    save_weights(recovered.final, folder / "weights.safetensors")
    onnx = folder / "model.onnx"
    export_onnx(recovered.final, onnx, input_shape=problem.network.input_shape, opset=spec.opset)
    cost = check_budget(onnx, problem.limits)
    parity_error = check_parity(onnx, recovered.final, splits.search.inputs[:PARITY_IMAGES])
    return _Finalist(name, found, plan, recovered, masked_error, parity_error, cost, onnx)


def _measure(files: list[Path], inputs: Inputs, progress: Report) -> list[Latency]:
    """Measure all exported files in turn, so that drift of the machine cancels."""
    progress(Progress(stage="measure", done=0, total=len(files), message="latency in onnxruntime", policy=None))
    return measure_side_by_side(files, input_shape=inputs.problem.network.input_shape)


def _outcome(
    finalist: _Finalist,
    spec: JobSpec,
    inputs: Inputs,
    directory: Path,
    unpruned: Latency,
    latency: Latency,
    progress: Report,
) -> PolicyOutcome:
    """Open the report split for one finalist and write its certificate."""
    progress(Progress(stage="report", done=0, total=1, message="scoring on the report split", policy=finalist.policy))
    problem, splits, recovered = inputs.problem, inputs.splits, finalist.recovered
    folder = directory / finalist.policy
    certificate = Certificate(
        budget=spec.budget,
        limits=dict(problem.limits),
        cost=finalist.cost,
        cost_unpruned=problem.cost(problem.costs.full()),
        file_bytes=finalist.onnx.stat().st_size,
        onnx_sha256=file_sha256(finalist.onnx),
        plan_sha256=file_sha256(folder / "plan.json"),
        model_sha256=problem.model_sha256,
        parity_error=finalist.parity_error,
        parity_images=min(PARITY_IMAGES, len(splits.search)),
        masked_error=finalist.masked_error,
        latency={
            "pruned": latency.to_dict(),
            "unpruned": unpruned.to_dict(),
            "speedup": unpruned.p10_ms / latency.p10_ms,  # medians of a busy machine differ up to sevenfold, p10 hardly
        },
        splits={"fit": splits.fit.sha256, "search": splits.search.sha256, "report": splits.report.sha256},
        seed=spec.seed,
        versions=versions(),
    ).to_dict()
    _write(folder / "certificate.json", json.dumps(certificate, indent=1))

    def scored(module: fx.GraphModule | None) -> ScoresView | None:
        return None if module is None else _view(score_on(splits.report, module, inputs))

    before = scored(recovered.before)
    assert before is not None
    best = finalist.search.best
    return PolicyOutcome(
        policy=finalist.policy,
        evaluations=len(finalist.search.trials),
        cached=finalist.search.cached,
        seconds=finalist.search.seconds,
        kept=dict(zip(problem.names, best.kept, strict=True)),
        cost=finalist.cost,
        search=_view(best.scores),
        search_finetuned=None if recovered.search_finetuned is None else _view(recovered.search_finetuned),
        report=before,
        report_finetuned=scored(recovered.finetuned),
        trials=[
            TrialView(number=t.number, objective=t.objective, cost=dict(t.cost), probe=t.probe)
            for t in finalist.search.trials
        ],
        certificate=certificate,
        artifacts={
            kind: f"{finalist.policy}/{file}"
            for kind, file in (
                ("onnx", "model.onnx"),
                ("plan", "plan.json"),
                ("weights", "weights.safetensors"),
                ("certificate", "certificate.json"),
            )
        },
    )


def _result(
    spec: JobSpec, inputs: Inputs, evaluator: Evaluator, outcomes: list[PolicyOutcome], seconds: float
) -> JobResult:
    """Put the whole job into one document; the best policy is chosen on the search split."""
    problem, splits = inputs.problem, inputs.splits

    def quality(outcome: PolicyOutcome) -> tuple[float, float]:
        scores = outcome.search_finetuned or outcome.search
        objective = scores.top1 if scores.top1 is not None else scores.agreement
        return (objective or 0.0, -(scores.loss if scores.loss is not None else scores.kl or 0.0))

    return JobResult(
        model=spec.model,
        model_sha256=problem.model_sha256,
        dataset=spec.dataset,
        input_shape=list(problem.network.input_shape),
        budget=spec.budget,
        limits=dict(problem.limits),
        cost=problem.cost(problem.costs.full()),
        groups=group_views(problem.network, problem.all_groups),
        decision_groups=list(problem.names),
        search=_view(evaluator.unpruned()),
        report=_view(score_on(splits.report, problem.network.module, inputs)),
        outcomes=outcomes,
        best=max(outcomes, key=quality).policy,
        warnings=list(inputs.warnings),
        seed=spec.seed,
        seconds=seconds,
    )


def _view(scores: Scores) -> ScoresView:
    """Turn scores into their JSON form."""
    return ScoresView(**scores.to_dict())


def _write(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
