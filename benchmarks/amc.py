"""AMC beside the other policies at equal evaluations, over seeds and evaluators: the tables in results/amc-MODEL.md.

    python benchmarks/amc.py ../shared --model resnet20_cifar10_jpeg.onnx --seed 0 --seed 1 --seed 2

Two evaluators: the official one (channels by magnitude, weights by least squares) and ours (channels by structured
OBS); both recalibrate batch norm. No refit. Needs the CIFAR-10 zips and the reference networks; takes hours on two
cores, jobs resume where they were stopped. What is in the output folder already goes into the table too.
"""

import argparse
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from _log import log_progress
from scipy.stats import t as student

from autoprune.service.pipeline.job_files import JOURNAL
from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.specs.job_spec import read_spec

EVALUATORS = {"official": "l1", "ours": "obs"}

#: Jobs by name: policies and settings of amc. Every job beside "all" tries amc otherwise than the default, is not
#: fine-tuned, and starts with the journal of "all" where that is there: what is known is not evaluated again.
JOBS: Mapping[str, tuple[Sequence[str], Mapping[str, object]]] = {
    "all": (("uniform", "random", "sensitivity", "exact", "amc"), {}),
    "fill": (("amc",), {"fill": True}),
    "experience": (("random", "exact", "amc"), {"experience": True}),
    "parallel": (("amc",), {"parallel_episodes": 4}),
    "stop early": (("amc",), {"stop_early": True}),
}

BUDGET = "macs=50%"

#: Evaluations at which the best so far is told.
MILESTONES = (25, 50, 100, 150, 200, 400)


def main() -> None:
    """Run all jobs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx", help="a file, or the name of one in models/")
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--device", help="device or latency table of a budget of latency")
    parser.add_argument("--evaluator", action="append", choices=EVALUATORS, default=[])
    parser.add_argument("--job", action="append", choices=JOBS, default=[])
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--search-images", type=int, default=500)
    parser.add_argument("--fit-images", type=int, default=10_000)
    parser.add_argument("--report-images", type=int, help="all by default")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-amc"))
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[JobResult]] = {}
    for seed in arguments.seed or [0, 1, 2]:
        for evaluator in arguments.evaluator or list(EVALUATORS):
            for job in arguments.job or list(JOBS):
                _job(arguments, evaluator, job, seed)
    name = _name(arguments)
    for path in sorted(arguments.output.glob(f"{name}/*/*/*/result.json")):
        evaluator, job = path.parts[-4:-2]
        found.setdefault((evaluator, job), []).append(JobResult.model_validate_json(path.read_text(encoding="utf-8")))
    table = Path(__file__).parent / "results" / f"amc-{name}.md"
    table.write_text(_page(arguments, found), encoding="utf-8")
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _name(arguments: argparse.Namespace) -> str:
    """Name what is compared: the network, and the budget unless it is the usual one."""
    quantity = arguments.budget.partition("=")[0]
    return Path(arguments.model).stem if arguments.budget == BUDGET else f"{quantity}-{Path(arguments.model).stem}"


def _job(arguments: argparse.Namespace, evaluator: str, job: str, seed: int) -> None:
    """Run one job where it is not complete."""
    jobs = arguments.output / _name(arguments) / evaluator
    folder, known = jobs / job / str(seed), jobs / "all" / str(seed) / JOURNAL
    if (folder / "result.json").exists():
        return
    if job != "all" and known.exists() and not (folder / JOURNAL).exists():
        folder.mkdir(parents=True)
        shutil.copy(known, folder)
    policies, amc = JOBS[job]
    path = Path(arguments.model)
    spec = read_spec(
        {
            "model": str(path if path.exists() else arguments.shared / "models" / path),
            "dataset": str(arguments.shared / "data" / "cifar10_jpeg_train.zip"),
            "report_dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
            "budget": arguments.budget,
            "device": arguments.device,
            "policies": list(policies),
            "amc": dict(amc),
            "criterion": EVALUATORS[evaluator],
            "evaluations": arguments.evaluations,
            "search_images": arguments.search_images,
            "fit_images": arguments.fit_images,
            "report_images": arguments.report_images,
            "refit": False,
            "finetune_epochs": arguments.epochs if job == "all" else 0,
            "seed": seed,
            "workers": arguments.workers,
        }
    )
    print(evaluator, job, seed, flush=True)  # noqa: T201 - a script's log
    run_job(spec, folder, progress=log_progress)


def _page(arguments: argparse.Namespace, found: Mapping[tuple[str, str], Sequence[JobResult]]) -> str:
    """Return all tables as Markdown."""
    some = next(iter(found.values()))[0]
    lines = [
        f"# AMC beside other policies at {some.budget}: {Path(arguments.model).name}",
        "",
        f"At most {arguments.evaluations} evaluations each, {some.search.images:,} search and {arguments.fit_images:,} "
        f"fit images from the training set, inner groups, no refit; {some.report.images:,} test images, scored once at "
        f"the end; fine-tuned for {arguments.epochs} epoch(s) on the fit images, with distillation.",
        f"Unpruned: {some.report.top1:.2%}. Mean over seeds, with the half width of its 95% t-interval.",
    ]
    for evaluator, criterion in EVALUATORS.items():
        rows = {name: _outcomes(found, evaluator, name) for name in _names(found, evaluator)}
        if not rows:
            continue
        lines += [
            "",
            f"## The {evaluator} evaluator (criterion {criterion})",
            "",
            "| policy | seeds | evaluations | search split | test | test, fine-tuned | amc ahead on test (points) |",
            "|---|---|---|---|---|---|---|",
            *(_row(name, by_seed, rows.get("amc", {})) for name, by_seed in rows.items()),
            "",
            "| best on the search split after | " + " | ".join(str(n) for n in _milestones(arguments)) + " |",
            "|---" * (len(_milestones(arguments)) + 1) + "|",
            *(_curve(name, by_seed, _milestones(arguments)) for name, by_seed in rows.items()),
        ]
    return "\n".join(lines) + "\n"


def _names(found: Mapping[tuple[str, str], Sequence[JobResult]], evaluator: str) -> list[str]:
    """Return the rows of one evaluator: all policies, then amc in its other forms."""
    policies = list(JOBS["all"][0]) if (evaluator, "all") in found else []
    return policies + [f"amc, {job}" for job in JOBS if job != "all" and (evaluator, job) in found]


def _outcomes(
    found: Mapping[tuple[str, str], Sequence[JobResult]], evaluator: str, name: str
) -> dict[int, PolicyOutcome]:
    """Return the outcomes of a row by seed."""
    policy, _, job = name.partition(", ")
    return {
        result.seed: outcome
        for result in found[evaluator, job or "all"]
        for outcome in result.outcomes
        if outcome.policy == policy
    }


def _row(name: str, by_seed: Mapping[int, PolicyOutcome], amc: Mapping[int, PolicyOutcome]) -> str:
    """Return one policy's line."""
    outcomes = list(by_seed.values())
    tests = {seed: outcome.report.top1 or 0.0 for seed, outcome in by_seed.items()}
    tuned = [o.report_finetuned.top1 for o in outcomes if o.report_finetuned and o.report_finetuned.top1]
    ahead = [100 * ((amc[seed].report.top1 or 0.0) - top1) for seed, top1 in tests.items() if seed in amc]
    return (
        f"| {name} | {len(outcomes)} | {statistics.mean(o.evaluations for o in outcomes):.0f} "
        f"| {_percent([o.search.top1 or 0.0 for o in outcomes])} | {_percent(list(tests.values()))} "
        f"| {_percent(tuned) if tuned else '-'} | {'-' if name == 'amc' or not ahead else _interval(ahead, '+.2f')} |"
    )


def _milestones(arguments: argparse.Namespace) -> list[int]:
    """Return the evaluations at which the best so far is told."""
    return [n for n in MILESTONES if n < arguments.evaluations] + [arguments.evaluations]


def _curve(name: str, by_seed: Mapping[int, PolicyOutcome], milestones: Sequence[int]) -> str:
    """Return one policy's best so far, mean over seeds."""
    cells = []
    for n in milestones:
        best = [
            max((t.objective for t in o.trials if t.competes and t.number <= n), default=None) for o in by_seed.values()
        ]
        known = [value for value in best if value is not None]
        cells.append(f"{statistics.mean(known):.2%}" if len(known) == len(best) else "-")
    return f"| {name} | " + " | ".join(cells) + " |"


def _percent(shares: Sequence[float]) -> str:
    """Format the mean of shares with its interval, in percent."""
    return _interval([100 * share for share in shares], ".2f")


def _interval(values: Sequence[float], form: str) -> str:
    """Format a mean with the half width of its 95% t-interval, where there are two values or more."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:{form}}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:{form}} ± {half:.2f}"


if __name__ == "__main__":
    main()
