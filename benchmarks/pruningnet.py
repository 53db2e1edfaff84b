"""How well a PruningNet ranks plans: the table in results/pruningnet-MODEL.md.

    python benchmarks/pruningnet.py ../shared --model resnet20_cifar10_jpeg.onnx

The truth is the accuracy after fine-tuning of what a job would deliver: the plan reconstructed, recalibrated, and
trained for an epoch, on test images that nothing else has seen. Proxies score on other test images. Needs the CIFAR-10
zips and the reference networks. Goes on where it was stopped.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from _bench import note, table
from scipy.stats import kendalltau

from autoprune.costs.budget import Budget
from autoprune.datasets.load import load_dataset
from autoprune.datasets.splits import SearchSplits, make_splits
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.evaluation.precision import choose_precision
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import find_groups
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.memory import keep_freed_memory
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.pruningnet.predicted_evaluator import PredictedEvaluator
from autoprune.pruningnet.pruningnet import PruningNet
from autoprune.pruningnet.settings import distilled, from_scratch
from autoprune.pruningnet.training import train_pruningnet
from autoprune.reconstruction.gram import IMAGES, collect_grams
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.answers import Answers
from autoprune.search.journal import Journal
from autoprune.search.pool import SerialPool
from autoprune.search.random_search import RandomSearch

BUDGET = 0.5

#: What all others are compared with.
FINE_TUNED = "fine-tuned"

#: Smallest and largest share of the MACs among the plans of different cost.
SPREAD = (0.3, 0.8)


def main() -> None:
    """Train, score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/ and models/")
    parser.add_argument("--model", default="resnet20_cifar10_jpeg.onnx")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--scratch", action="store_true", help="predict whole weights, as in the paper")
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument("--search-images", type=int, default=4000)
    parser.add_argument("--tuning-images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-pruningnet"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.output.mkdir(parents=True, exist_ok=True)
    problem, search, held_out = _setup(arguments)
    evaluator = Evaluator(problem, search)
    with _timed(arguments.output / "training-seconds.txt"):
        net = _train(arguments, problem, search)
    untrained = PruningNet(problem, scratch=False, hidden=1, seed=0)
    proxies: dict[str, PlanEvaluator] = {
        "trained weights, cropped": PredictedEvaluator(evaluator, untrained),
        "predicted weights": PredictedEvaluator(evaluator, net),
        "reconstructed": evaluator,
    }
    truth = TunedEvaluator(
        Evaluator(problem, held_out),
        held_out,
        steps=arguments.tuning_images // FinetuneSettings().batch_size,
        checkpoints=arguments.output / "tuned",
        settings=FinetuneSettings(),
        precision=choose_precision("auto"),
    )
    sets = {
        f"{BUDGET:.0%} of the MACs": _at(problem, BUDGET, arguments.plans, arguments.seed),
        f"{SPREAD[0]:.0%} to {SPREAD[1]:.0%}": _spread(problem, arguments.plans, arguments.seed),
    }
    with Journal.open(arguments.output / "journal.sqlite") as journal:
        scores = {
            title: {name: _scored(each, plans, journal) for name, each in {**proxies, FINE_TUNED: truth}.items()}
            for title, plans in sets.items()
        }
    path = Path(__file__).parent / "results" / f"pruningnet-{Path(arguments.model).stem}.md"
    path.write_text(_page(arguments, problem, scores), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _setup(arguments: argparse.Namespace) -> tuple[PruningProblem, SearchSplits, SearchSplits]:
    """Return the problem, what proxies see, and what the truth is scored on: fit images of the training set alone."""
    network = load_network(arguments.shared / "models" / arguments.model)
    train, test = (
        load_dataset(str(arguments.shared / "data" / f"cifar10_jpeg_{name}.zip"), input_shape=network.input_shape)
        for name in ("train", "test")
    )
    fit = make_splits(train, fit_images=arguments.images, search_images=10, report_images=10, seed=arguments.seed).fit
    unseen = make_splits(
        test,
        fit_images=10,
        search_images=arguments.search_images,
        report_images=len(test) - arguments.search_images - 10,
        seed=arguments.seed,
    )
    network = measure_batchnorm(network, fit.inputs[:512])
    groups = find_groups(network)
    statistics = collect_grams(network, groups.prunable(), fit.inputs[:IMAGES], seed=arguments.seed)
    problem = pruning_problem(
        network, Budget.parse(f"macs={BUDGET:.0%}"), criterion="obs", groups=groups, statistics=statistics
    )
    return problem, SearchSplits(fit, unseen.search), SearchSplits(fit, unseen.report)


def _train(arguments: argparse.Namespace, problem: PruningProblem, search: SearchSplits) -> PruningNet:
    """Train the PruningNet, or go on with it."""
    settings = (from_scratch if arguments.scratch else distilled)(epochs=arguments.epochs, seed=arguments.seed)

    def say(done: int, total: int, text: str) -> None:
        if done % max(1, total // 50) == 0:
            print(f"{done} of {total} steps, {text}, {time.process_time():.0f} s", flush=True)  # noqa: T201

    return train_pruningnet(
        problem,
        search.fit,
        settings,
        precision=choose_precision("auto"),
        checkpoint=arguments.output / "pruningnet.safetensors",
        progress=say,
    ).net


@contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Add the processor seconds of the block to those in a file; a training that went on counts in all its parts."""
    start = time.process_time()
    try:
        yield
    finally:
        before = float(file.read_text(encoding="utf-8")) if file.exists() else 0.0
        file.write_text(f"{before + time.process_time() - start:.1f}", encoding="utf-8")


def _at(problem: PruningProblem, share: float, plans: int, seed: int) -> list[Plan]:
    """Return different random plans that use up this share of the MACs."""
    limit = int(share * problem.cost(problem.costs.full())["macs"])
    limited = replace(problem, limits={"macs": limit})
    return [problem.plan(proposal.policy) for proposal in RandomSearch(limited, seed).ask(plans)]


def _spread(problem: PruningProblem, plans: int, seed: int) -> list[Plan]:
    """Return one random plan for each of as many budgets."""
    low, high = SPREAD
    shares = [low + (high - low) * number / (plans - 1) for number in range(plans)]
    return [_at(problem, share, 1, seed + 1 + number)[0] for number, share in enumerate(shares)]


def _scored(evaluator: PlanEvaluator, plans: Sequence[Plan], journal: Journal) -> list[Scores]:
    """Return the scores of plans."""
    scores = []
    for number, answer in enumerate(Answers(evaluator, journal, SerialPool(), lambda: False).of(plans), start=1):
        print(f"{type(evaluator).__name__}, plan {number}: {answer.scores.top1:.4f}", flush=True)  # noqa: T201
        scores.append(answer.scores)
    return scores


def _page(arguments: argparse.Namespace, problem: PruningProblem, scores: dict[str, dict[str, list[Scores]]]) -> str:
    """Return the table as Markdown."""
    seconds = float((arguments.output / "training-seconds.txt").read_text(encoding="utf-8"))
    rows = [
        (title, name, _spread_of(each), *_taus(each, by_evaluator[FINE_TUNED] if name != FINE_TUNED else None))
        for title, by_evaluator in scores.items()
        for name, each in by_evaluator.items()
    ]
    way = "from scratch, smoothed labels" if arguments.scratch else "corrections to the trained weights, distilled"
    unpruned = problem.cost(problem.costs.full())["macs"]
    images = next(iter(scores.values()))[FINE_TUNED][0].images
    head = ("plans", "weights", "top-1: mean (range)", "tau by top-1", "p", "tau by loss", "p")
    return (
        f"# How a PruningNet ranks plans: {arguments.model}\n\n"
        + table(head, rows)
        + note(
            f"PruningNet: {way}; {arguments.epochs} epochs of {arguments.images:,} training images, "
            f"{choose_precision('auto')}, {seconds / 60:.1f} minutes of one core's time. {arguments.plans} random "
            f"plans each (policy random), of the inner groups; unpruned {unpruned / 1e6:.1f} M MACs; channels by OBS."
        )
        + note(
            f"Fine-tuned: reconstructed, recalibrated, one epoch of {arguments.tuning_images:,} training images with "
            f"the default settings; scored on {images:,} test images. The others are recalibrated and scored on "
            f"{arguments.search_images:,} other test images. Tau is Kendall's, of these scores with top-1 after "
            "fine-tuning; p is two-sided."
        )
    )


def _spread_of(scores: Sequence[Scores]) -> str:
    """Format accuracies."""
    tops = [100 * (one.top1 or 0.0) for one in scores]
    return f"{statistics.mean(tops):.2f}% ({min(tops):.2f} to {max(tops):.2f})"


def _taus(scores: Sequence[Scores], truth: Sequence[Scores] | None) -> tuple[str, ...]:
    """Format Kendall's tau with the fine-tuned accuracies, of accuracies and of losses, each with its p-value."""
    if truth is None:
        return ("", "", "", "")
    wanted = [one.top1 for one in truth]
    found = (kendalltau([one.top1 for one in scores], wanted), kendalltau([-one.regret for one in scores], wanted))
    return tuple(cell for each in found for cell in (f"{each.statistic:.2f}", f"{each.pvalue:.1g}"))


if __name__ == "__main__":
    main()
