"""Accuracy of the exact policy before fine-tuning, over several seeds: the table in results/accuracy-MODEL.md.

    python benchmarks/accuracy.py ../shared --model resnet20_cifar10_jpeg.onnx --seed 0 --seed 1 --seed 2

Fit and search images come from the training zip, accuracies from the whole test zip, scored once at the end of each
job. Needs the CIFAR-10 zips and the reference networks. Jobs resume where they were stopped.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from _log import log_progress

from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.specs.job_spec import read_spec


def main() -> None:
    """Run all jobs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx")
    parser.add_argument("--budget", default="macs=50%")
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--evaluations", type=int, action="append", default=[], help="1: no network is evaluated")
    parser.add_argument("--search-images", type=int, default=2000)
    parser.add_argument("--fit-images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=0, help="fine-tune the winner of the longest search")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-accuracy"))
    arguments = parser.parse_args()
    name = Path(arguments.model).stem
    rows: dict[int, list[JobResult]] = {}
    counts = sorted(arguments.evaluations or [1, 100])
    for seed in arguments.seed or [0, 1, 2]:
        for evaluations in counts:
            folder = arguments.output / f"{name}-{evaluations}-{arguments.fit_images}-{seed}"
            epochs = arguments.epochs if evaluations == counts[-1] else 0
            rows.setdefault(evaluations, []).append(_job(arguments, folder, seed, evaluations, epochs))
    table = Path(__file__).parent / "results" / f"accuracy-{name}.md"
    table.parent.mkdir(exist_ok=True)
    table.write_text(_table(arguments, rows), encoding="utf-8")
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _job(arguments: argparse.Namespace, folder: Path, seed: int, evaluations: int, epochs: int) -> JobResult:
    """Run one job, or read its result where it is complete."""
    if (folder / "result.json").exists():
        return JobResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    spec = read_spec(
        {
            "model": str(arguments.shared / "models" / arguments.model),
            "dataset": str(arguments.shared / "data" / "cifar10_jpeg_train.zip"),
            "report_dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
            "budget": arguments.budget,
            "policies": ["exact"],
            "evaluations": evaluations,
            "search_images": arguments.search_images,
            "fit_images": arguments.fit_images,
            "finetune_epochs": epochs,
            "seed": seed,
            "threads": arguments.threads,
            "workers": arguments.workers,
        }
    )
    return run_job(spec, folder, progress=log_progress)


def _table(arguments: argparse.Namespace, rows: dict[int, list[JobResult]]) -> str:
    """Return accuracies by number of evaluations as Markdown."""
    results = [result for each in rows.values() for result in each]
    baseline = results[0].report.top1
    assert baseline is not None
    lines = [
        f"# Accuracy of the exact policy at {results[0].budget}: {arguments.model}",
        "",
        f"Seeds {', '.join(str(r.seed) for r in next(iter(rows.values())))}; {arguments.fit_images:,} fit and "
        f"{arguments.search_images:,} search images from the training set; {results[0].report.images:,} test images.",
        f"Unpruned: {baseline:.2%}. Mean and range over the seeds.",
        "",
        "| evaluations | MACs at most | search split | test, before fine-tuning | drop (points) | test, fine-tuned |",
        "|---|---|---|---|---|---|",
    ]
    for evaluations, each in rows.items():
        outcomes = [result.outcomes[0] for result in each]
        tops = [_top1(outcome) for outcome in outcomes]
        share = max(o.cost["macs"] / r.cost["macs"] for o, r in zip(outcomes, each, strict=True))
        tuned = [o.report_finetuned.top1 for o in outcomes if o.report_finetuned and o.report_finetuned.top1]
        found = [o.search_pruned.top1 for o in outcomes if o.search_pruned.top1 is not None]
        lines.append(
            f"| {evaluations if evaluations > 1 else 'none'} | {share:.2%} | {_spread(found)} | {_spread(tops)} "
            f"| {100 * (baseline - statistics.mean(tops)):.2f} | {_spread(tuned) if tuned else '-'} |"
        )
    if arguments.epochs:
        lines += ["", f"Fine-tuned for {arguments.epochs} epochs on the fit images, with the default settings."]
    return "\n".join(lines) + "\n"


def _top1(outcome: PolicyOutcome) -> float:
    """Return a policy's accuracy on the test images before fine-tuning."""
    assert outcome.report.top1 is not None
    return outcome.report.top1


def _spread(values: Sequence[float]) -> str:
    """Format a mean with its range."""
    return f"{statistics.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"


if __name__ == "__main__":
    main()
