"""Taylor criteria against the leave-one-out oracle: the table in results/molchanov-*.md.

    python benchmarks/molchanov.py ../shared --data digits
    python benchmarks/molchanov.py ../shared --data cifar

A LeNet is trained from scratch. Every channel is left out alone, and the criteria are correlated with what the loss
then gains; then channels go one by one by each criterion, and by the oracle measured anew at every step, until the
loss has risen by 1. Goes on where it was stopped.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _bench import note, table
from _gates import Kind, expanded
from _scratch import Task, cifar_task, digits_task, interval, remembered
from torch import Tensor, nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from autoprune.recovery.finetune import finetune
from autoprune.studies.greedy import oracle_scores, remove_greedily, removed_within
from autoprune.studies.oracle import leave_one_out
from autoprune.studies.rank_correlation import agreement
from autoprune.training.channel_removal import ChannelScore

#: What the loss may rise by, in nats.
RISE = 1.0

#: What channels are removed by where time is short; all others are correlated with the oracle only.
QUICK = ("first order: taylor-gate, batches of 32", "second order: exact", "oracle, absolute change")

#: Channels of the two convolutions and of the hidden layer.
WIDTHS = (16, 32, 64)

ORACLES = {"oracle, absolute change": True, "oracle, signed change": False}


class LeNet(nn.Module):
    """Two convolutions with pools, one hidden linear layer; ReLU, no batch norm (LeCun et al. 1998)."""

    def __init__(self, shape: tuple[int, ...], widths: tuple[int, int, int], kernel: int) -> None:
        super().__init__()
        first, second, hidden = widths
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], first, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.hidden = nn.Linear(second * (shape[1] // 4) * (shape[2] // 4), hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to class scores."""
        return self.head(torch.relu(self.hidden(self.features(x).flatten(1))))  # type: ignore[no-any-return]


def _network(task: Task, seed: int) -> Network:
    """Return a trained LeNet."""
    shape = tuple(task.train[0].shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = trace(LeNet(shape, WIDTHS, 3 if task.name == "digits" else 5), shape)
    module = finetune(start.module, *task.train, replace(task.training, seed=seed)).module
    return Network(module, start.input_shape, start.shapes)


def _criteria(images: Tensor, labels: Tensor) -> dict[str, ChannelScore]:
    """Return what is compared: each a score of the network as it is at the time, on the oracle's own images."""

    def named(criterion: str, batch: int) -> ChannelScore:
        data = CriterionData(images, labels, batch_size=batch)
        return lambda network, groups: score_units(network, groups, criterion, data)

    def expansion(kind: Kind) -> ChannelScore:
        return lambda network, groups: expanded(network, groups, CriterionData(images, labels), kind)

    return {
        "first order: taylor-gate, all images at once": named("taylor-gate", len(images)),
        "first order: taylor-gate, batches of 32": named("taylor-gate", 32),
        "first order: taylor-gate, image by image": named("taylor-gate", 1),
        "first order: group-taylor, batches of 32": named("group-taylor", 32),
        "first order: taylor, batches of 32": named("taylor", 32),
        "first order: mean over images of the absolute": expansion("mean of absolutes"),
        "second order: exact": expansion("exact"),
        "second order: Fisher": expansion("fisher"),
        "fisher": named("fisher", 32),
        "l2": named("l2", 32),
        "random": named("random", 32),
    }


def _measured(task: Task, images: int, quick: bool, seed: int) -> dict[str, list[float]]:
    """Return for each criterion: Spearman over all layers, lowest of a layer, over all normalised, channels removed."""
    network = _network(task, seed)
    inputs, labels = task.train[0][:images], task.train[1][:images]
    groups = find_groups(network)
    chosen = groups.prunable()
    oracle = leave_one_out(network, groups, chosen, inputs, labels)
    figures: dict[str, list[float]] = {"network": [task.accuracy(network.module), oracle.loss]}

    def removed(name: str, score: ChannelScore) -> float:
        if quick and name not in QUICK:
            return math.nan
        return removed_within(remove_greedily(network, chosen, score, inputs, labels, rise=RISE), RISE)

    for name, score in _criteria(inputs, labels).items():
        scores = score(network, groups)
        found = agreement(oracle, {group.name: scores[list(group.units)] for group in chosen})
        layers = [each.spearman or 0.0 for each in found.layers.values()]
        figures[name] = [
            found.together.spearman or 0.0,
            min(layers),
            found.normalised.spearman or 0.0,
            removed(name, score),
        ]
        print(f"{name}: {figures[name]}", flush=True)  # noqa: T201 - a script's log
    names = [group.name for group in chosen]
    for name, absolute in ORACLES.items():
        figures[name] = [removed(name, oracle_scores(names, inputs, labels, absolute=absolute))]
        print(f"{name}: {figures[name]}", flush=True)  # noqa: T201 - a script's log
    return figures


def main() -> None:
    """Measure all seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/")
    parser.add_argument("--data", choices=("digits", "cifar"), default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=512, help="training images that losses are measured on")
    parser.add_argument("--quick", action="store_true", help="remove channels by a few criteria only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-molchanov"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = _task(arguments.shared, arguments.data, arguments.epochs)
    found = remembered(
        arguments.output / f"{task.name}.json",
        arguments.seeds,
        partial(_measured, task, arguments.images, arguments.quick),
    )
    path = Path(__file__).parent / "results" / f"molchanov-{task.name}.md"
    path.write_text(_page(task, found, arguments.images), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _task(shared: Path, data: str, epochs: int) -> Task:
    """Return images and training; the rate is half of that of networks with batch norm on CIFAR."""
    if data == "digits":
        return digits_task(epochs, 1200)
    task = cifar_task(shared, epochs, 5000, ())
    return replace(task, training=replace(task.training, learning_rate=0.05))


def _page(task: Task, found: Mapping[str, Sequence[Sequence[float]]], images: int) -> str:
    """Return the tables as Markdown."""
    columns = {name: list(zip(*each, strict=True)) for name, each in found.items()}
    accuracy, loss = columns.pop("network")
    oracle = columns[next(iter(ORACLES))][0]
    rows = []
    for name, figures in columns.items():
        correlations = [_shown(each, 3) for each in figures[:-1]] or ["-"] * 3
        shares = [count / best for count, best in zip(figures[-1], oracle, strict=True)]
        rows.append((name, *correlations, _shown(figures[-1], 1), _share(shares)))
    head = ("criterion", "Spearman, all layers", "lowest of a layer", "all layers, normalised", f"removed at +{RISE:g}")
    text = (
        f"{task.name}: {len(task.train[0]):,} training images of {'x'.join(map(str, task.train[0].shape[1:]))}, "
        f"LeNet ({' '.join(map(str, WIDTHS))}, no batch norm), {task.training.epochs} epochs of SGD at "
        f"{task.training.learning_rate:g}; accuracy {_shown([100 * each for each in accuracy], 1)}%, loss "
        f"{_shown(loss, 3)} on the {images} training images that everything here is measured on. {len(accuracy)} "
        "seeds, means with 95% intervals (Student t). Spearman: with the absolute loss change when the channel alone "
        "is left out, of scores as they are, in the layer where it is lowest, and of scores divided by their l2 norm "
        f"per layer. Removed: of {sum(WIDTHS)} channels, one by one, scores taken anew every time, nothing trained, "
        f"until the loss has risen by more than {RISE:g}; the oracles leave every remaining channel out at every step. "
        "No regularisation by FLOPs."
    )
    title = f"# Taylor criteria and the leave-one-out oracle: {task.name}\n\n"
    return title + table((*head, "of the oracle's"), rows) + note(text)


def _shown(values: Sequence[float], digits: int) -> str:
    """Format a mean with its interval; a dash where it was not measured."""
    if math.isnan(values[0]):
        return "-"
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    mean, half = interval(values)
    return f"{mean:.{digits}f} +- {half:.{digits}f}"


def _share(shares: Sequence[float]) -> str:
    """Format the mean of shares; a dash where it was not measured."""
    return "-" if math.isnan(shares[0]) else f"{100 * np.mean(shares):.1f}%"


if __name__ == "__main__":
    main()
