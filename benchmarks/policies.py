"""Policies at the same budget on the reference networks: the tables in results/policies-*.md.

    python benchmarks/policies.py ../shared --policy uniform --policy random --policy sensitivity
    python benchmarks/policies.py ../shared --policy uniform --policy netadapt --budget latency=50% --device laptop

Needs the CIFAR-10 zips and the reference networks; takes an hour or more on two cores.
"""

import argparse
from pathlib import Path

from _log import log_progress

from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult, PolicyOutcome, ScoresView
from autoprune.service.specs.job_spec import read_spec


def main() -> None:
    """Run the job (it resumes where it was stopped) and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet56_cifar10_jpeg.onnx")
    parser.add_argument("--budget", default="macs=50%")
    parser.add_argument("--policy", action="append", default=[])
    parser.add_argument("--device", help="device or latency table of a budget of latency")
    parser.add_argument("--include-residual", action="store_true")
    parser.add_argument("--short-term-steps", type=int, default=0, help="of netadapt")
    parser.add_argument("--evaluations", type=int, default=280)
    parser.add_argument("--search-images", type=int, default=1000)
    parser.add_argument("--fit-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-policies"))
    arguments = parser.parse_args()
    spec = read_spec(
        {
            "model": str(arguments.shared / "models" / arguments.model),
            "dataset": str(arguments.shared / "data" / "cifar10_jpeg_train.zip"),
            "report_dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
            "budget": arguments.budget,
            "device": arguments.device,
            "include_residual": arguments.include_residual,
            "short_term_steps": arguments.short_term_steps,
            "policies": arguments.policy or ["uniform", "random", "sensitivity"],
            "evaluations": arguments.evaluations,
            "search_images": arguments.search_images,
            "fit_images": arguments.fit_images,
            "finetune_epochs": arguments.epochs,
            "threads": arguments.threads,
        }
    )
    result = run_job(spec, arguments.output, progress=log_progress)
    settings = (
        f"{arguments.model}, {spec.budget}, {spec.search_images} search images, {spec.fit_images} fit images, "
        f"{spec.finetune_epochs} epoch(s) of fine-tuning with distillation, seed {spec.seed}"
    )
    if spec.include_residual:
        settings += ", residual streams pruned too"
    if spec.short_term_steps:
        settings += f", netadapt with {spec.short_term_steps} training steps for each proposal"
    kind = "-latency" if "latency" in result.limits else ""
    table = Path(__file__).parent / "results" / f"policies{kind}-{Path(arguments.model).stem}.md"
    table.parent.mkdir(exist_ok=True)
    table.write_text(_table(result, settings), encoding="utf-8")
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _table(result: JobResult, settings: str) -> str:
    """Return the comparison as Markdown."""
    lines = [
        f"# Policies at one budget: {result.budget}",
        "",
        f"{settings}. Report split: {result.report.images:,} test images, scored once at the end.",
        f"Unpruned: {_percent(result.report)} on the report split, {_percent(result.search)} on the search split.",
        "",
        "| policy | evaluations | MACs | predicted latency | search | report | report, fine-tuned "
        "| measured latency (onnxruntime) | speed-up |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(outcome, result) for outcome in result.outcomes]
    return "\n".join(lines) + "\n"


def _row(outcome: PolicyOutcome, result: JobResult) -> str:
    """Return one policy's line."""
    latency = outcome.certificate["latency"]
    assert isinstance(latency, dict)
    share = outcome.cost.get("latency", 0) / result.cost.get("latency", 1)
    predicted = f"{share:.1%}" if share else "-"
    return (
        f"| {outcome.policy} | {outcome.evaluations} | {outcome.cost['macs'] / result.cost['macs']:.2%} | {predicted} "
        f"| {_percent(outcome.search_pruned)} | {_percent(outcome.report)} | {_percent(outcome.report_finetuned)} "
        f"| {1 / latency['speedup']:.1%} | {latency['speedup']:.2f}x |"
    )


def _percent(scores: ScoresView | None) -> str:
    """Format a top-1 accuracy."""
    return "-" if scores is None or scores.top1 is None else f"{scores.top1:.2%}"


if __name__ == "__main__":
    main()
