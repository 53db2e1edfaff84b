"""How well other budgets are predicted from one search: the table in results/what-if-MODEL.md.

    python benchmarks/what_if.py ../shared --model resnet20_cifar10_jpeg.onnx --seed 0 --seed 1

One search within half of the MACs with the policies random and exact; what `what-if` says of other budgets; then the
allocations it assumed are evaluated on the same search images. Fit and search images come from the test zip, which the
networks were not trained on. Jobs resume where they were stopped.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from _log import log_progress

from autoprune.evaluation.evaluator import Evaluator
from autoprune.service.pipeline.inputs import load_inputs
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.what_if import BudgetView, WhatIfView, what_if
from autoprune.service.specs.job_spec import JobSpec, read_spec


@dataclass(frozen=True, slots=True)
class Case:
    """What was said of several budgets after one search, and what came of them.

    Attributes:
        seed: Of the search.
        view: What was said.
        seconds: How long that took.
        scores: What the assumed allocations score.

    """

    seed: int
    view: WhatIfView
    seconds: float
    scores: tuple[float, ...]


def main() -> None:
    """Run all searches, ask, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx")
    parser.add_argument("--share", type=int, action="append", default=[], help="percent of the MACs to ask about")
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--evaluations", type=int, default=60, help="of each of the two policies")
    parser.add_argument("--search-images", type=int, default=500)
    parser.add_argument("--fit-images", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-what-if"))
    arguments = parser.parse_args()
    name = Path(arguments.model).stem
    cases = [_case(arguments, arguments.output / f"{name}-{seed}", seed) for seed in arguments.seed or [0]]
    table = Path(__file__).parent / "results" / f"what-if-{name}.md"
    table.write_text(_table(arguments, cases), encoding="utf-8")
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _case(arguments: argparse.Namespace, folder: Path, seed: int) -> Case:
    """Search, ask, and evaluate what was assumed."""
    spec = read_spec(
        {
            "model": str(arguments.shared / "models" / arguments.model),
            "dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
            "budget": "macs=50%",
            "policies": ["random", "exact"],
            "evaluations": arguments.evaluations,
            "search_images": arguments.search_images,
            "fit_images": arguments.fit_images,
            "report_images": 10,
            "refit": False,
            "seed": seed,
            "workers": 1,
        }
    )
    if not (folder / "result.json").exists():
        run_job(spec, folder, progress=log_progress)
    budgets = [f"macs={share}%" for share in arguments.share or [70, 60, 40, 30]]
    started = time.process_time()
    view = what_if(folder / EVIDENCE, budgets)
    return Case(seed, view, time.process_time() - started, _scores(spec, view))


def _scores(spec: JobSpec, view: WhatIfView) -> tuple[float, ...]:
    """Evaluate the allocation that was assumed for each budget, as a search would."""
    inputs = load_inputs(spec, log_progress)
    evaluator = Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision)
    plans = [
        inputs.problem.plan(inputs.problem.policy([answer.kept[name] for name in inputs.problem.names]))
        for answer in view.budgets
    ]
    return tuple(evaluator.evaluate(plan).objective for plan in plans)


def _table(arguments: argparse.Namespace, cases: list[Case]) -> str:
    """Return predictions beside what was evaluated, as Markdown."""
    pairs = [pair for case in cases for pair in zip(case.view.budgets, case.scores, strict=True)]
    held = sum(answer.low <= score <= answer.high for answer, score in pairs)
    off = sum(abs(answer.score - score) for answer, score in pairs) / len(pairs)
    lines = [
        f"# What other budgets cost, predicted from one search: {arguments.model}",
        "",
        f"Searched at macs=50% with `random` and `exact`, {arguments.evaluations} evaluations each, "
        f"{arguments.search_images:,} search and {arguments.fit_images:,} fit images the network was not trained on;",
        "then the exact allocation within each budget was evaluated on the same search images. No fine-tuning, no "
        "refit.",
        f"{held} of {len(pairs)} intervals of {cases[0].view.level:.0%} hold the score; predictions are "
        f"{100 * off:.1f} points off in the mean. All budgets of a search were answered in "
        f"{max(case.seconds for case in cases):.2f} s of processor time.",
        "",
        "| seed | unpruned | MACs at most | predicted | interval | evaluated | off (points) | held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        for answer, score in zip(case.view.budgets, case.scores, strict=True):
            lines.append(
                f"| {case.seed} | {case.view.unpruned:.1%} | {answer.budget.removeprefix('macs=')} "
                f"| {answer.score:.1%} | {_interval(answer)} | {score:.1%} | {100 * (answer.score - score):+.1f} "
                f"| {'yes' if answer.low <= score <= answer.high else 'no'} |"
            )
    gains = ", ".join(f"{100 * case.view.gain.gain:+.1f} (seed {case.seed})" for case in cases if case.view.gain)
    lines += ["", f"Points that searching gained over the exact allocation at macs=50%: {gains}."]
    return "\n".join(lines) + "\n"


def _interval(answer: BudgetView) -> str:
    """Format an interval."""
    return f"{answer.low:.1%} to {answer.high:.1%}" + (", extrapolated" if answer.extrapolated else "")


if __name__ == "__main__":
    main()
