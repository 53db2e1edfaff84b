"""Policies over several seeds on a reference network: the table in results/comparison-MODEL.md, the report beside it.

    python benchmarks/comparison.py ../shared
    python benchmarks/comparison.py ../shared --policy exact --policy netadapt --policy amc --seeds 5 --evaluations 200
    python benchmarks/comparison.py ../shared --url http://127.0.0.1:8765   # the same by a running service, over REST

Fit and search images come from the training zip, report images are the whole test zip, scored once at the end. Needs
the CIFAR-10 zips and the reference networks. A comparison that was stopped goes on with the same command.
"""

import argparse
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly
from _log import log_progress
from plotly.offline import get_plotlyjs

from autoprune.service.client.client import Client
from autoprune.service.comparisons.comparison_result import FILE, ComparisonResult, PolicyView
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.comparisons.words import ends_text, interval_text
from autoprune.service.results.wording import duration, metric, percent
from autoprune.service.specs.reading import read_as


def main() -> None:
    """Run the comparison and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx")
    parser.add_argument("--budget", default="macs=50%")
    parser.add_argument("--policy", action="append", default=[], help="besides the baselines")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--search-images", type=int, default=2000)
    parser.add_argument("--fit-images", type=int, default=4000)
    parser.add_argument("--report-images", type=int, help="all test images by default")
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--url", help="address of a service that runs it; this process does by default")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-comparison"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the table")
    arguments = parser.parse_args()
    name = Path(arguments.model).stem
    settings = {
        "model": str(arguments.shared / "models" / arguments.model),
        "dataset": str(arguments.shared / "data" / "cifar10_jpeg_train.zip"),
        "report_dataset": str(arguments.shared / "data" / "cifar10_jpeg_test.zip"),
        "budget": arguments.budget,
        "policies": arguments.policy or ["uniform", "random", "sensitivity", "exact", "netadapt", "amc"],
        "seeds": arguments.seeds,
        "evaluations": arguments.evaluations,
        "search_images": arguments.search_images,
        "fit_images": arguments.fit_images,
        "report_images": arguments.report_images,
        "finetune_epochs": arguments.epochs,
        "workers": arguments.workers,
        "threads": arguments.threads,
    }
    spec = read_as(ComparisonSpec, settings)
    folder = arguments.output / name
    if arguments.url is None:
        result = run_comparison(spec, folder, progress=log_progress)
    else:
        result = _over_rest(arguments.url, settings, folder)
    table = arguments.results / f"comparison-{name}.md"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(_page(spec, result), encoding="utf-8")
    report = (folder / "report.html").read_text(encoding="utf-8")
    table.with_suffix(".html").write_text(_without_plotly(report, table.parent), encoding="utf-8")
    shutil.copyfile(folder / "comparison.csv", table.with_suffix(".csv"))
    print(table.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _without_plotly(report: str, folder: Path) -> str:
    """Return a report that takes its 5 MB of plotly.js from where this checkout has it installed, to be committed."""
    file = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    link = f'<script src="{os.path.relpath(file, folder.resolve())}" charset="utf-8"></script>'
    linked = report.replace(f"<script>{get_plotlyjs()}</script>", link)
    return linked.replace("script-src 'unsafe-inline'", "script-src 'unsafe-inline' 'self' file:")


def _over_rest(url: str, settings: Mapping[str, Any], folder: Path) -> ComparisonResult:
    """Let a service run the comparison, and fetch what it leaves."""
    with Client(url) as client:
        comparison = client.compare(**settings)
        print(comparison.id)  # noqa: T201 - to watch it by
        comparison.wait()
        comparison.download(folder)
    return ComparisonResult.model_validate_json((folder / FILE).read_text(encoding="utf-8"))


def _page(spec: ComparisonSpec, result: ComparisonResult) -> str:
    """Return the comparison as Markdown."""
    measure, delivered = metric(result.delivered), result.delivered
    policies = [policy.policy for policy in result.policies]
    lines = [
        f"# Policies over {spec.seeds} seeds at {spec.budget}: {Path(spec.model).name}",
        "",
        f"{spec.evaluations} evaluations each, {spec.fit_images:,} fit and {spec.search_images:,} search images from "
        f"the training set, {delivered.report.images:,} test images; {spec.finetune_epochs} epochs of fine-tuning.",
        f"{measure.label.capitalize()}, mean ± half of the 95% interval over the seeds. Unpruned: "
        f"{percent(measure.of(delivered.report))} on the test images.",
        "",
        *_table(["policy", "search, found", "search, in the end", "test, pruned", "test, in the end", "trials", "time"],
                map(_row, result.policies)),
        "",
        "Best so far on the search images after so much time of one process:",
        "",
        *_table(["time", *policies, ""],
                ([duration(each.at), *(percent(each.best[policy]) for policy in policies), ends_text(each)]
                 for each in result.by_seconds)),
        "",
        *(f"- {text}" for text in result.verdicts),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(policy: PolicyView) -> list[str]:
    """Return one policy's cells."""
    means = (policy.search, policy.search_final, policy.report_pruned, policy.report)
    time = "-" if policy.seconds is None else duration(policy.seconds.mean)
    return [policy.policy, *map(interval_text, means), f"{policy.trials:.0f}", time]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
