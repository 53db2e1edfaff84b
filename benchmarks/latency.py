"""Latency tables against whole networks: the tables in results/latency-*.md.

    python benchmarks/latency.py                      # all sections, about an hour on a quiet machine
    python benchmarks/latency.py --section lookups
    python benchmarks/latency.py --section prediction --precision int8 --network resnet20_cifar --plans 10 --minutes 2

Needs no data: latency does not depend on weights. Everything runs on one thread, at batch 1, in fp32 but for the
section prediction with --precision int8.

* prediction: a table per network, then random aligned plans, predicted and timed whole, in turn.
* speedup: MobileNetV1 within half of its latency, beside a network of as many MACs with widths of any kind.
* lookups: how long it takes to price plans.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoprune.costs.budget import Budget
from autoprune.costs.quantities import LATENCY, NS_PER_MS
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.onnx_int8 import quantize_onnx
from autoprune.latency_tables.device_name import device_name
from autoprune.latency_tables.device_run import measure_work
from autoprune.latency_tables.measure import Latency, measure_side_by_side
from autoprune.latency_tables.session import processor_name
from autoprune.latency_tables.table import LatencyTable
from autoprune.latency_tables.values import PRECISIONS
from autoprune.network.network import Network
from autoprune.problem import Counts, PruningProblem, pruning_problem
from autoprune.pruning.surgery import prune
from autoprune.search.uniform import uniform_policy
from autoprune.service.devices.kit import KitOptions, device_work
from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult
from autoprune.service.specs.job_spec import read_spec
from autoprune.zoo.registry import build

NETWORKS = ("resnet56_cifar", "mobilenet_v1", "mobilenet_v2")

#: Noise that int8 files are calibrated on: which values they compute does not matter to their time.
NOISE_IMAGES = 2


def main() -> None:
    """Run the sections asked for and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=SECTIONS, default=[])
    parser.add_argument("--network", action="append", choices=(*NETWORKS, "resnet20_cifar"), default=[])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the section prediction")
    parser.add_argument("--plans", type=int, default=20, help="random plans of each network")
    parser.add_argument("--tables", type=Path, default=Path("runs/benchmark-latency"), help="folder that keeps tables")
    parser.add_argument("--minutes", type=float, default=9.0, help="to measure one table")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    for section in arguments.section or SECTIONS:
        text = "\n".join(SECTIONS[section](arguments)) + "\n"
        name = f"{section}-int8" if section == "prediction" and arguments.precision == "int8" else section
        (results / f"latency-{name}.md").write_text(text, encoding="utf-8")
        print(text, flush=True)  # noqa: T201 - a script's result


def prediction(arguments: argparse.Namespace) -> list[str]:
    """Mean absolute error of predicted against measured latency of random aligned plans."""
    precision = arguments.precision
    lines = [
        f"# Predicted against measured latency, {precision}, {arguments.plans} random plans each (multiples of 8)",
        "",
        "| network | table: units, measured in | error the table states | error found | worst | MACs left "
        "| measured, ms | unpruned, ms (fp32) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in arguments.network or NETWORKS:
        network = build(name)
        table, seconds = _table(arguments, name, network, precision)
        problem = pruning_problem(network, Budget.parse("macs=99.9%"), latencies=table, criterion="l2")
        kept = _random_plans(problem, arguments.seed, arguments.plans)
        predicted = np.array([problem.cost(each)[LATENCY] for each in kept]) / NS_PER_MS
        times_ms = [each.p10_ms for each in _timed(problem, kept, precision)]
        unpruned_fp32, unpruned, measured = *times_ms[:2], np.array(times_ms[2:])
        macs = [problem.cost(each)["macs"] / problem.cost(problem.costs.full())["macs"] for each in kept]
        errors = np.abs(predicted / measured - 1)
        stated = next(iter(table.calibrations.values()))
        lines.append(
            f"| {name} | {len(table.entries)}, {seconds / 60:.1f} min | {stated.error:.1%} | {errors.mean():.1%} "
            f"| {errors.max():.1%} | {min(macs):.0%} to {max(macs):.0%} "
            f"| {measured.min():.3g} to {measured.max():.3g} | {unpruned:.3g} ({unpruned_fp32:.3g}) |"
        )
    return [
        *lines,
        "",
        f"Times are 10th percentiles; {os.getloadavg()[0]:.0f} tasks competed for {os.cpu_count()} cores.",
    ]


def speedup(arguments: argparse.Namespace) -> list[str]:
    """A job within half of the latency, and a network of as many MACs that ignores blocks of channels."""
    network = build("mobilenet_v1")
    _table(arguments, "mobilenet_v1", network, "fp32")
    with tempfile.TemporaryDirectory() as folder:
        result = _job(Path(folder), arguments.tables / "mobilenet_v1.json", network, images=24, **_UNIFORM_ALONE)
        outcome = result.outcomes[0]
        unaligned = pruning_problem(network, Budget.parse(f"macs={outcome.cost['macs']}"), criterion="l2")
        loose = unaligned.kept(uniform_policy(unaligned))
        paths = [Path(folder) / "job" / "unpruned.onnx", Path(folder) / "job" / "uniform" / "model.onnx"]
        paths.append(Path(folder) / "loose.onnx")
        _export(unaligned, loose, paths[2])
        base, within, other = measure_side_by_side(
            paths, input_shape=network.input_shape, repeats=100, time_budget_s=60.0
        )
    latency = outcome.certificate["latency"]
    assert isinstance(latency, dict)
    lines = [
        "# MobileNetV1 at 224 x 224 within half of its latency, uniform policy",
        "",
        "| network | MACs left | predicted latency left | measured (p10) | measured (median) | speed-up (p10) |",
        "|---|---|---|---|---|---|",
    ]
    full = result.cost["macs"]
    for label, macs, predicted, timed in (
        ("unpruned", 1.0, "100%", base),
        (
            "multiples of 8, latency <= 50%",
            outcome.cost["macs"] / full,
            f"{outcome.cost[LATENCY] / result.cost[LATENCY]:.1%}",
            within,
        ),
        ("any widths, as many MACs", unaligned.cost(loose)["macs"] / full, "-", other),
    ):
        lines.append(
            f"| {label} | {macs:.1%} | {predicted} | {timed.p10_ms / base.p10_ms:.1%} "
            f"| {timed.median_ms / base.median_ms:.1%} | {base.p10_ms / timed.p10_ms:.2f} |"
        )
    return [
        *lines,
        "",
        f"The job timed {len(outcome.trials)} candidates whole until one held the budget; its certificate: "
        f"{latency['share_of_limit']:.1%} of what is allowed.",
    ]


_UNIFORM_ALONE = {"policies": ["uniform"], "evaluations": 1, "criterion": "l2", "reconstruction": False, "refit": False}


def _job(folder: Path, table: Path, network: Network, *, images: int, **settings: object) -> JobResult:
    """Run a job on noise: which weights and images it has does not matter to latency."""
    export_onnx(network.module, folder / "mobilenet.onnx", input_shape=network.input_shape)
    noise = np.random.default_rng(0).integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)
    np.savez(folder / "noise.npz", images=noise)
    spec = read_spec(
        {
            "model": str(folder / "mobilenet.onnx"),
            "dataset": str(folder / "noise.npz"),
            "budget": "latency=50%",
            "device": str(table.resolve()),
            **settings,
        }
    )
    return run_job(spec, folder / "job")


def lookups(arguments: argparse.Namespace) -> list[str]:
    """How long it takes to price 10,000 plans of ResNet-56."""
    network = build("resnet56_cifar")
    table, _ = _table(arguments, "resnet56_cifar", network, "fp32")
    problem = pruning_problem(network, Budget.parse("latency=60%"), latencies=table, criterion="l2")
    latency = problem.costs.latency
    assert latency is not None
    kept = np.array([np.resize(each, len(problem.groups)) for each in _random_plans(problem, arguments.seed, 20)])
    kept = kept[np.random.default_rng(0).integers(0, len(kept), 10_000)]
    seconds = []
    for price in (
        lambda: [latency.at(each) for each in kept],
        lambda: [problem.cost(each) for each in kept],
        lambda: latency.at(kept),
    ):
        started = time.perf_counter()
        price()
        seconds.append(time.perf_counter() - started)
    names = ("latency, one by one", "all costs, one by one", "latency, all at once")
    lines = ["# Pricing 10,000 plans of ResNet-56 from a table", "", "| what | us per plan |", "|---|---|"]
    return lines + [f"| {name} | {each * 1e6 / len(kept):.1f} |" for name, each in zip(names, seconds, strict=True)]


def _table(arguments: argparse.Namespace, name: str, network: Network, precision: str) -> tuple[LatencyTable, float]:
    """Return the table of a network, measured now if there is none yet, and the seconds it took."""
    path = arguments.tables / (f"{name}.json" if precision == "fp32" else f"{name}.{precision}.json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            options = KitOptions(time_budget_s=60 * arguments.minutes, precision=precision)
            work = device_work(network, Path(folder), options)
            measured = measure_work(
                work, Path(folder), device=device_name(processor_name()), state=path.with_suffix(".jsonl")
            )
        assert measured.table is not None
        measured.table.save(path)
        path.with_suffix(".seconds").write_text(str(time.perf_counter() - started), encoding="utf-8")
    return LatencyTable.load(path), float(path.with_suffix(".seconds").read_text(encoding="utf-8"))


def _random_plans(problem: PruningProblem, seed: int, count: int) -> list[Counts]:
    """Draw kept counts, each group's ratio between 0 and a bound of its own plan, so that sizes differ widely."""
    generator = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        bound = generator.uniform(0.1, 0.9)
        ratios = generator.uniform(0, bound, len(problem.groups))
        wanted = (1 - ratios) * problem.costs.full()
        plans.append(np.array([w[np.argmin(np.abs(w - want))] for w, want in zip(problem.widths, wanted, strict=True)]))
    return plans


def _export(problem: PruningProblem, kept: Counts, path: Path) -> None:
    """Write the network that keeps these counts."""
    module = prune(problem.network, problem.all_groups, problem.plan(problem.policy(kept)))
    export_onnx(module, path, input_shape=problem.network.input_shape)


def _timed(problem: PruningProblem, plans: Sequence[Counts], precision: str) -> list[Latency]:
    """Time the unpruned network in fp32 and in `precision`, and the networks of several plans, in turn."""
    full = problem.costs.full()
    noise = np.random.default_rng(0).standard_normal((NOISE_IMAGES, *problem.network.input_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index, kept in enumerate([full, full, *plans]):
            paths.append(Path(folder) / f"{index}.onnx")
            _export(problem, kept, paths[-1])
            if index and precision == "int8":
                quantize_onnx(paths[-1], paths[-1], noise)
        return measure_side_by_side(paths, input_shape=problem.network.input_shape, repeats=60, time_budget_s=120.0)


SECTIONS = {"prediction": prediction, "speedup": speedup, "lookups": lookups}

if __name__ == "__main__":
    main()
