"""A Pareto front of one search on a reference network: the table in results/front-MODEL.md.

    python benchmarks/front.py ../shared

Needs the CIFAR-10 zips and the reference networks; takes minutes on two cores, and resumes where it was stopped.
"""

import argparse
from pathlib import Path

from _log import log_progress

from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import FrontPoint, JobResult, PolicyOutcome, ScoresView
from autoprune.service.specs.job_spec import JobSpec, read_spec


def main() -> None:
    """Run the job and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx")
    parser.add_argument("--budget", default="macs=80%")
    parser.add_argument("--front", default="macs=30%", help="lower end")
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--warm-start", action="store_true")
    parser.add_argument("--evaluations", type=int, default=120)
    parser.add_argument("--search-images", type=int, default=500)
    parser.add_argument("--fit-images", type=int, default=2000)
    parser.add_argument("--report-images", type=int, default=2000)
    parser.add_argument("--no-refit", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-front"))
    arguments = parser.parse_args()
    spec = read_spec(
        {
            "model": str(arguments.shared / "models" / arguments.model),
            "dataset": str(arguments.shared / "data" / "cifar10_jpeg_train.zip"),
            "report_dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
            "budget": arguments.budget,
            "front": {"least": arguments.front, "points": arguments.points},
            "policies": ["nsga2"],
            "warm_start": arguments.warm_start,
            "evaluations": arguments.evaluations,
            "search_images": arguments.search_images,
            "fit_images": arguments.fit_images,
            "report_images": arguments.report_images,
            "refit": not arguments.no_refit,
        }
    )
    result = run_job(spec, arguments.output, progress=log_progress)
    table = Path(__file__).parent / "results" / f"front-{Path(arguments.model).stem}.md"
    table.write_text(_table(result, spec), encoding="utf-8")
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _table(result: JobResult, spec: JobSpec) -> str:
    """Return the front as Markdown."""
    assert spec.front is not None
    outcome = result.outcomes[0]
    start = "the exact allocations" if spec.warm_start else "random policies"
    lines = [
        f"# A front by one search: {Path(result.model).name}, {spec.front.least} to {result.budget}",
        "",
        f"{outcome.evaluations} evaluations of NSGA-II, started with {start}; {spec.search_images} search and "
        f"{spec.fit_images} fit images from the training set, {'with' if spec.refit else 'no'} refit, no fine-tuning, "
        f"seed {spec.seed}; {result.report.images:,} test images.",
        f"{len(outcome.front)} of the trials are on the front. Unpruned: {_percent(result.report)} on test images.",
        "",
        "| plan | MACs | params | search, as searched | search, delivered | test | certificate | trial |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(number, point, outcome, result) for number, point in enumerate(outcome.front_points, start=1)]
    return "\n".join(lines) + "\n"


def _row(number: int, point: FrontPoint, outcome: PolicyOutcome, result: JobResult) -> str:
    """Return one plan's line."""
    shares = " | ".join(f"{point.cost[name] / result.cost[name]:.1%}" for name in ("macs", "params"))
    held = "holds" if point.certificate["holds"] is True else "missing"
    return (
        f"| {number:02} | {shares} | {_percent(point.search)} | {_percent(point.search_refit or point.search)} "
        f"| {_percent(point.report)} | {held} | {point.trial} of {outcome.evaluations} |"
    )


def _percent(scores: ScoresView) -> str:
    """Format a top-1 accuracy."""
    return "-" if scores.top1 is None else f"{scores.top1:.2%}"


if __name__ == "__main__":
    main()
