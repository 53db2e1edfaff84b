"""What the evaluation of a candidate costs, and what Gram statistics cost and are worth: results/evaluation.md.

    python benchmarks/evaluation.py ../shared
    python benchmarks/evaluation.py ../shared --section overhead --section pool

Needs the CIFAR-10 zips and the reference networks. All sections take about ten minutes on two quiet cores; a section
that is run alone replaces its part of the table. Other machines have other speeds, so the table holds ratios of times
taken side by side, and medians of these. Times are processor seconds of one thread, which other programs disturb
least, in a process that keeps the memory it has; only the pool is measured by the clock on the wall.
"""

import argparse
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from _bench import BUDGET, RESNET20, RESNET56, VGG11, Bench, middle, note, share, table, told
from _candidates import Times
from _gram_samples import GramSamples, Sampled
from _growth import by_images, by_layers, by_width

from autoprune.costs.budget import Budget
from autoprune.datasets.load import load_dataset
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.search.local_pool import local_pool
from autoprune.search.sensitivity import Sensitivity

RESULTS = Path(__file__).parent / "results" / "evaluation.md"

#: Plans that the pool is given at once.
BATCH = 8


def overhead(bench: Bench) -> str:
    """Share of an evaluation that is spent in forward passes."""
    candidates = bench.candidates(RESNET56, bench.images)
    times = [candidates.measure(plan) for plan in told("overhead", candidates.random(bench.rounds))]
    parts: dict[str, Callable[[Times], float]] = {
        "forward passes: scoring": lambda t: t.scoring,
        "forward passes: recalibration": lambda t: t.recalibrating,
        "**everything but forward passes**": lambda t: t.evaluation - t.passes,
        "- recalibration beyond its passes": lambda t: t.recalibration - t.recalibrating,
        "- reconstruction, no layer remembered": lambda t: t.solving,
        "- building the pruned network": lambda t: t.building,
        "- metrics": lambda t: t.metrics,
        "(reconstruction, all layers remembered)": lambda t: t.solving_again,
    }
    rows = []
    for name, part in parts.items():
        shares = [part(t) / t.evaluation for t in times]
        rows.append((name, f"{median(shares):.1%}", f"{min(shares):.1%}", f"{max(shares):.1%}"))
    return table(("part", "share of an evaluation", "least", "most"), rows) + note(
        f"ResNet-56, {bench.images:,} search images, {RECALIBRATION_IMAGES} for recalibration, {BUDGET}, median of "
        f"{len(times)} random policies, one thread. Target: everything but forward passes under 5%. The passes are "
        "those of the same pruned, recalibrated network in inference mode, on images that already lie in channels-last "
        "layout. Recalibration normalises by the statistics of each batch, which takes longer than inference: all of "
        "that counts as beyond its passes. The parts are also timed alone, so they do not add up exactly."
    )


def throughput(bench: Bench) -> str:
    """Candidates per second against a bare forward pass of the same pruned network."""
    rows = []
    for name in (RESNET20, RESNET56, VGG11):
        candidates = bench.candidates(name, bench.images)
        times = [candidates.measure(plan) for plan in told(name, candidates.random(bench.rounds))]
        rows.append(
            (
                name.split("_")[0],
                middle(t.scoring / t.evaluation for t in times),
                middle(t.scoring / t.passes for t in times),
                middle(t.passes / t.evaluation for t in times),
                share(t.solving / t.evaluation for t in times),
                share((t.recalibration - t.recalibrating) / t.evaluation for t in times),
            )
        )
    head = (
        "network",
        "candidates per scoring pass",
        "the same, were there nothing but passes",
        "candidates per scoring and recalibration pass",
        "share of reconstruction",
        "share of recalibration beyond its passes",
    )
    return table(head, rows) + note(
        "How many candidates are evaluated in the time of one bare forward pass of the same pruned network over the "
        f"{bench.images:,} search images; and over search and recalibration images. {BUDGET}, median of {bench.rounds} "
        "random policies each, no layer remembered."
    )


def growth(bench: Bench) -> str:
    """Growth with layers, images and widths."""
    return "\n".join((by_layers(bench), by_images(bench), by_width(bench)))


def pool(bench: Bench) -> str:
    """Two workers against one."""
    case = bench.candidates(RESNET20, bench.images).remembering()
    plans = case.random(BATCH * bench.rounds + 2)
    walls = []
    with local_pool(1) as one, local_pool(2) as two:
        for workers in (one, two):  # the first plans start the workers and bring them the evaluator
            list(workers.evaluate(case.evaluator, plans[-2:]))
        for turn in told("pool", range(bench.rounds)):
            found, clocks = [], []
            for workers in (one, two):
                start = time.perf_counter()
                found.append(list(workers.evaluate(case.evaluator, plans[BATCH * turn : BATCH * (turn + 1)])))
                clocks.append(time.perf_counter() - start)
            if found[0] != found[1]:
                raise SystemExit("expected the same scores from one and from two workers, found others")
            walls.append(clocks)
    rows = [(f"round {number}", f"{one_s / two_s:.2f}") for number, (one_s, two_s) in enumerate(walls, start=1)] + [
        ("**median**", middle(one_s / two_s for one_s, two_s in walls))
    ]
    return table(("", "speed of two workers (1 = one worker)"), rows) + note(
        f"By the clock on the wall: ResNet-20, {bench.images:,} search images, {BATCH} random policies at once, one "
        "thread per evaluation, workers already started. All scores are equal, bit for bit. Target: 1.7 on two quiet "
        "cores."
    )


def gram(bench: Bench) -> str:
    """Cost and error of Gram statistics by number of samples."""
    network, points_most = bench.network(RESNET20), max(bench.gram_points)
    found: dict[tuple[int, int], list[Sampled]] = {}
    for seed in range(bench.seeds):
        fit = max(*bench.gram_images, RECALIBRATION_IMAGES) + bench.reference_images
        splits = bench.splits(fit=fit, search=10, seed=seed)
        measured = measure_batchnorm(network, splits.fit.inputs[:RECALIBRATION_IMAGES])
        samples = GramSamples(
            measured, splits, Budget.parse(BUDGET), reference_images=bench.reference_images, points=points_most
        )
        for images, points in told("gram", [(i, p) for p in bench.gram_points for i in bench.gram_images]):
            found.setdefault((images, points), []).append(samples.sampled(images, points))
    rows = [
        (
            f"{images:,}",
            points,
            middle(each.cost for each in several),
            f"{mean(each.error for each in several):.1%}",
            f"{mean(each.largest for each in several):.1%}",
            max(each.underdetermined for each in several),
            f"{mean(each.uniform for each in several):.2%}",
            f"{mean(each.exact for each in several):.2%}",
        )
        for (images, points), several in found.items()
    ]
    head = ("images", "points", "cost", "error", "worst error", "too few samples", "top-1 of uniform", "top-1 of exact")
    return table(head, rows) + note(
        f"ResNet-20 (88.4% unpruned), inner groups, channels ordered by OBS; mean of {bench.seeds} seed(s), each with "
        "other fit images. Points: output positions sampled per image and layer. Cost: time to collect the statistics, "
        "relative to a bare forward pass of the unpruned network over the same images. Error: Frobenius norm of a "
        "layer's Gram matrix minus the reference, relative to the reference, in the median and in the worst layer; the "
        f"reference is of {bench.reference_images:,} other images with {points_most} points each, and its own error is "
        f"included. Too few samples: layers with fewer samples than features. Top-1: on {len(splits.report):,} test "
        f"images, at {BUDGET}, reconstructed and recalibrated on {RECALIBRATION_IMAGES} images, neither refitted nor "
        "fine-tuned."
    )


def reuse(bench: Bench) -> str:
    """Candidates that share their first layers with the last one against random ones."""
    case = bench.candidates(RESNET20, bench.images)
    problem, default = case.problem, case.remembering()
    probes = len(problem.groups) + 1
    scan = [problem.plan(proposal.policy) for proposal in Sensitivity(problem, probes + 1).ask(probes)]
    rows = []
    for name, evaluating, plans in (
        ("random policies, nothing remembered", case, case.random(2 * bench.rounds)),
        ("random policies", default, case.random(2 * bench.rounds)),
        ("scan, one group at a time", default, scan),
    ):
        both = [evaluating.against_passes(plan) for plan in told(name, plans)]
        ratios = [evaluation / passes for evaluation, passes in both]
        total = sum(evaluation for evaluation, _ in both) / sum(passes for _, passes in both)
        rows.append((name, len(plans), f"{total:.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}"))
    return table(("candidates", "number", "time of all", "least", "most"), rows) + note(
        "Times are relative to bare forward passes of the same pruned networks over the same images. ResNet-20, "
        f"{bench.images:,} search images, {RECALIBRATION_IMAGES} for recalibration; one evaluator, candidates in the "
        "order in which a policy proposes them. Activations of the last candidate are remembered within the default "
        "bound; what the next one shares is not computed again, so an evaluation may take less than its own forward "
        "passes. In all other sections nothing is remembered of the last candidate but solved layers."
    )


#: Every section by name; the titles in the table are their descriptions.
SECTIONS: dict[str, Callable[[Bench], str]] = {
    section.__name__: section for section in (overhead, throughput, growth, pool, gram, reuse)
}


def main() -> None:
    """Run the sections that were asked for and put them into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--section", action="append", choices=list(SECTIONS), default=[], help="only these")
    parser.add_argument("--images", type=int, default=2000, help="search images")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of which medians are taken")
    parser.add_argument("--seeds", type=int, default=1, help="runs of which accuracies are averaged")
    parser.add_argument("--gram-images", type=int, nargs="+", default=[125, 250, 500, 1000, 2000])
    parser.add_argument("--gram-points", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--reference-images", type=int, default=8000, help="of the reference Gram matrices")
    parser.add_argument("--test-images", type=int, help="of the accuracies; all by default")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is compared is the work of a processor
    torch.set_num_threads(1)
    _keep_memory()
    data = options.shared / "data"
    test = load_dataset(data / "cifar10_jpeg_test.zip")
    if options.test_images is not None:
        test = test.subset(np.random.default_rng(0).permutation(len(test))[: options.test_images])
    bench = Bench(
        models=options.shared / "models",
        train=load_dataset(data / "cifar10_jpeg_train.zip"),
        test=test,
        images=options.images,
        rounds=options.rounds,
        seeds=options.seeds,
        gram_images=tuple(options.gram_images),
        gram_points=tuple(options.gram_points),
        reference_images=options.reference_images,
    )
    for name in options.section or SECTIONS:
        load = f"Load average when the section began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
        _put(options.output, name, SECTIONS[name](bench) + note(load))
    print(options.output.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _keep_memory() -> None:
    """Have the allocator keep what is freed, where it is glibc's.

    Else pages go back to the system and are fetched again, now on one side of a ratio and now on the other: up to a
    third of a time.
    """
    libc, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        if not libc.mallopt(mmap_threshold, 2**30):
            libc.mallopt(mmap_threshold, 2**25)  # the most that older versions take


def _put(path: Path, name: str, text: str) -> None:
    """Replace one section of the table; the others stay."""
    titles = {name: (section.__doc__ or name).rstrip(".") for name, section in SECTIONS.items()}
    parts = path.read_text(encoding="utf-8").split("\n## ")[1:] if path.exists() else []
    bodies = {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}
    bodies[titles[name]] = text.strip()
    sections = [f"## {title}\n\n{bodies[title]}\n" for title in titles.values() if title in bodies]
    path.parent.mkdir(exist_ok=True)
    path.write_text("# Evaluation of candidates\n\n" + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
