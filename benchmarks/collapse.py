"""How far an untrained network can be pruned before a layer collapses: the tables in results/collapse-vgg11_cifar10.md.

    python benchmarks/collapse.py ../shared

VGG-11 is pruned at initialisation: SynFlow in 100 exponential rounds, everything else at once, as in its paper. Then a
VGG-11 of a quarter of the width is pruned likewise and trained. Goes on where it was stopped.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _bench import note, table
from _scratch import Task, cifar_task, remembered, shown
from torch import Tensor, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.weights import score_weights
from autoprune.datasets.load import load_dataset
from autoprune.datasets.splits import make_splits
from autoprune.errors import PlanError
from autoprune.network.layers import PRODUCERS
from autoprune.network.masked import masked
from autoprune.network.network import Network, own_copy
from autoprune.recovery.finetune import finetune
from autoprune.training.layer_collapse import find_collapse, maximal_critical_compression
from autoprune.training.masks import MaskKeeper, Masks, full_masks, kept_weights, smaller_masks
from autoprune.training.rounds import exponential
from autoprune.training.scored_rounds import prune_by_scores
from autoprune.training.weight_scores import ByCriterion, weights_of
from autoprune.zoo.registry import build

#: Of a VGG-11 of a quarter of the width.
WIDTHS = (16, 0, 32, 0, 64, 64, 0, 128, 128, 0, 128, 128)

#: Names of what prunes at once, and of the criterion.
AT_ONCE = {"magnitude": "l1", "random": "random", "SNIP": "snip", "GraSP": "grasp", "SynFlow, at once": "synflow"}
SYNFLOW, ROUNDS = "SynFlow, 100 rounds", 100

#: Logarithms of the compressions of the first table.
SHOWN = (1, 2, 3, 4, 5, 6)

#: Compressions after which networks are trained.
TRAINED = (10, 100, 1000)

#: Images for SNIP and GraSP: ten of each class, as in the paper, on average.
IMAGES = 100


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a ranking of all weights leads to collapse.

    Attributes:
        fewest: Weights, the fewest that can be kept of it without collapse.
        layer: Number of the first layer that collapses with one weight less.

    """

    fewest: int
    layer: int


def main() -> None:
    """Prune, train and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trained-seeds", type=int, default=3, help="of the second table, 0 for none")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000, help="to train on")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-collapse"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = _whole_images(arguments.shared)
    limits = remembered(
        arguments.output / "limits.json",
        arguments.seeds,
        lambda seed: _limits(seed, CriterionData(images, labels, seed)),
    )
    text = _collapses(limits)
    if arguments.trained_seeds:
        task = cifar_task(arguments.shared, arguments.epochs, arguments.images, WIDTHS)
        file = arguments.output / "accuracies.json"
        text += _trainings(task, remembered(file, arguments.trained_seeds, lambda seed: _accuracies(task, seed)))
    path = Path(__file__).parent / "results" / "collapse-vgg11_cifar10.md"
    path.write_text(text, encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _whole_images(shared: Path) -> tuple[Tensor, Tensor]:
    """Return a few training images of CIFAR-10 in full size, and their labels."""
    train = load_dataset(str(shared / "data" / "cifar10_jpeg_train.zip"), input_shape=(3, 32, 32))
    fit = make_splits(train, fit_images=IMAGES, search_images=10, report_images=10, seed=0).fit
    assert fit.labels is not None
    return fit.inputs, fit.labels


def _initialised(network: Network, seed: int) -> Network:
    """Return `network` with weights drawn from a normal distribution of variance 2 / inputs (He et al. 2015)."""
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        if isinstance(layer, PRODUCERS):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _limits(seed: int, data: CriterionData) -> dict[str, list[float]]:
    """Return for each way to prune at once the fewest weights and the layer, for SynFlow what it reached."""
    network = _initialised(build("vgg11_bn"), seed)
    found: dict[str, list[float]] = {}
    for name, criterion in AT_ONCE.items():
        limit = _limit(network, score_weights(network, criterion, data))
        found[name] = [limit.fewest, limit.layer]
        print(f"seed {seed}, {name}: {limit}", flush=True)  # noqa: T201 - a script's log
    found[SYNFLOW] = [_reached(network, maximal_critical_compression(network))]
    return found


def _limit(network: Network, scores: Mapping[str, Tensor]) -> Limit:
    """Search by halves: what is kept of fewer weights is a part of what is kept of more."""
    masks: Masks = full_masks(network)
    total = kept_weights(masks)
    possible, collapsed, layer = total, 0, ""
    while possible - collapsed > 1:
        kept = max(collapsed + 1, min(possible - 1, round(math.sqrt(possible * max(1, collapsed)))))
        fewer = smaller_masks(masks, scores, kept / total)
        collapse = find_collapse(network, fewer)
        if collapse.empty or collapse.cut:
            collapsed, layer = kept, (collapse.empty or collapse.cut)[0]
        else:
            possible, masks = kept, fewer
    return Limit(possible, list(masks).index(layer))


def _reached(network: Network, compression: float) -> float:
    """Send SynFlow to a compression; return the weights that are left, or 0 if a layer collapsed on the way."""
    try:
        masks = prune_by_scores(network, exponential(1 / compression, ROUNDS), ByCriterion("synflow"))
    except PlanError as error:
        print(error, flush=True)  # noqa: T201 - a script's log
        return 0.0
    return float(kept_weights(masks))


def _accuracies(task: Task, seed: int) -> dict[str, list[float]]:
    """Return the accuracies after training, one per compression; NaN where a layer collapsed."""
    network = _initialised(task.network(seed), seed)
    data = CriterionData(task.train[0][:IMAGES], task.train[1][:IMAGES], seed)
    found = {"whole": [_trained(task, network, full_masks(network), seed)]}
    for name, criterion in AT_ONCE.items():
        scores = score_weights(network, criterion, data)
        found[name] = [
            _trained(task, network, smaller_masks(full_masks(network), scores, 1 / c), seed) for c in TRAINED
        ]
    flow = ByCriterion("synflow")
    found[SYNFLOW] = [
        _trained(task, network, prune_by_scores(network, exponential(1 / c, ROUNDS), flow), seed) for c in TRAINED
    ]
    return found


def _trained(task: Task, network: Network, masks: Masks, seed: int) -> float:
    """Train what masks keep; return top-1 on the test images."""
    collapse = find_collapse(network, masks)
    if collapse.empty or collapse.cut:
        return math.nan
    start, settings = masked(network, masks).module, replace(task.training, seed=seed)
    return task.accuracy(finetune(start, *task.train, settings, after_step=MaskKeeper(masks)).module)


def _collapses(limits: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Return the first table as Markdown."""
    network = build("vgg11_bn")
    layers, most = list(weights_of(network)), maximal_critical_compression(network)
    total, seeds = round(most * len(layers)), len(limits[SYNFLOW])
    rows = []
    for name in AT_ONCE:
        first = dict.fromkeys(_label(layers, int(number)) for _, number in limits[name])
        rows.append((name, *_row([total / fewest for fewest, _ in limits[name]], most), ", ".join(first)))
    reached = [each[0] for each in limits[SYNFLOW]]
    rows.append((SYNFLOW, *_row([total / kept if kept else 1.0 for kept in reached], most), "none"))
    return (
        "# Layer collapse: vgg11_cifar10\n\n"
        + table(
            ("pruned by", "largest compression without collapse", *(f"10^{p}" for p in SHOWN), "collapses first"), rows
        )
        + note(
            f"VGG-11 with batch norms for CIFAR-10 (3x32x32), untrained, weights drawn with variance 2 / inputs: "
            f"{total:,} weights in {len(layers)} layers, maximal critical compression {most:,.0f}. {seeds} seeds: "
            "geometric mean and range; how many of them reach 10^n without collapse. At once: one ranking of all "
            f"weights by the scores of the whole network, of {IMAGES} training images for SNIP and GraSP; their limits "
            f"are exact. {SYNFLOW}, exponential, scored anew in each, on the way to the maximal critical compression, "
            "where one weight is left in each layer and a path through them; masks are checked after every round, so "
            "at each of 100 compressions in between. Batch norms in eval mode, as in the paper: the identity here."
        )
    )


def _trainings(task: Task, accuracies: Mapping[str, list[list[float]]]) -> str:
    """Return the second table as Markdown."""
    most = maximal_critical_compression(task.network(0))
    return (
        "\n"
        + table(
            ("top-1 after training", *(f"1/{c}" for c in TRAINED)),
            [(name, *_cells(accuracies[name])) for name in (*AT_ONCE, SYNFLOW)],
        )
        + note(
            f"{task.text} {len(accuracies['whole'])} seeds, means with 95% intervals (Student t); the whole network: "
            f"{shown([each[0] for each in accuracies['whole']])}. 1/c of its weights are kept from the start on; its "
            f"maximal critical compression is {most:,.0f}. A dash: a layer collapsed "
            "with every seed, or with as many as are said."
        )
    )


def _row(compressions: Sequence[float], most: float) -> list[str]:
    """Return the mean and range of the largest compressions, and how many reach each that is shown."""
    mean = math.exp(sum(map(math.log, compressions)) / len(compressions))
    reach = [f"{sum(each >= min(10**power, most) for each in compressions)}/{len(compressions)}" for power in SHOWN]
    return [f"{mean:,.0f} ({min(compressions):,.0f} to {max(compressions):,.0f})", *reach]


def _label(layers: Sequence[str], number: int) -> str:
    """Name a layer as people count."""
    return f"convolution {number + 1}" if number < len(layers) - 1 else "the linear layer"


def _cells(accuracies: Sequence[Sequence[float]]) -> list[str]:
    """Return what to show of each compression: a mean where no seed collapsed."""
    columns = list(zip(*accuracies, strict=True))
    collapsed = [sum(map(math.isnan, column)) for column in columns]
    return [
        shown(column) if not count else "-" if count == len(column) else f"- ({count} of {len(column)})"
        for column, count in zip(columns, collapsed, strict=True)
    ]


if __name__ == "__main__":
    main()
