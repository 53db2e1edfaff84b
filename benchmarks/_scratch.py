"""What is trained from scratch in benchmarks: small images, small VGGs, and how sure a difference is."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from autoprune.datasets.load import load_dataset
from autoprune.datasets.splits import Split, make_splits
from autoprune.evaluation.metrics import score
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.zoo.vgg import VGG

SETTINGS = FinetuneSettings(
    optimizer="sgd",
    warmup_epochs=0,
    distillation=0,
    hints=0,
    freeze_batchnorm=False,
)


@dataclass(frozen=True, slots=True)
class Task:
    """Images to train and to test on, and the network.

    Attributes:
        name: Of the data.
        train: Images ``(n, C, H, W)`` and labels ``(n,)``.
        test: Likewise; no other use is made of them.
        widths: Of the VGG's convolutions, 0 for a pool.
        training: From scratch.

    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    widths: tuple[int, ...]
    training: FinetuneSettings

    def network(self, seed: int) -> Network:
        """Return an untrained network."""
        shape = tuple(self.train[0].shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return trace(VGG(self.widths, 10, shape), shape)

    def accuracy(self, module: nn.Module) -> float:
        """Return top-1 on the test images."""
        top1 = score(module, *self.test).top1
        assert top1 is not None
        return top1

    @property
    def text(self) -> str:
        """The task in a sentence."""
        channels, height, width = self.train[0].shape[1:]
        widths = " ".join("pool" if each == 0 else str(each) for each in self.widths)
        return (
            f"{self.name}: {len(self.train[0]):,} training and {len(self.test[0]):,} test images of "
            f"{channels}x{height}x{width}, VGG with batch norms ({widths}), {self.training.epochs} epochs of SGD at "
            f"{self.training.learning_rate:g}, batches of {self.training.batch_size}."
        )


def digits_task(epochs: int, images: int) -> Task:
    """Return the handwritten digits of scikit-learn, 8x8."""
    splits = make_splits(load_dataset("digits"), fit_images=images, search_images=10, seed=0)
    settings = _settings(epochs, 0.05, 32, augment=False)
    return Task("digits", _labelled(splits.fit), _labelled(splits.report), (16, 16, 0, 32, 32), settings)


def cifar_task(shared: Path, epochs: int, images: int, widths: tuple[int, ...]) -> Task:
    """Return a part of CIFAR-10, every 2x2 pixels averaged."""
    train, test = (
        load_dataset(str(shared / "data" / f"cifar10_jpeg_{name}.zip"), input_shape=(3, 32, 32))
        for name in ("train", "test")
    )
    splits = make_splits(train, report_dataset=test, fit_images=images, search_images=10, report_images=2000, seed=0)
    halved = [(F.avg_pool2d(inputs, 2), labels) for inputs, labels in map(_labelled, (splits.fit, splits.report))]
    return Task("cifar10_jpeg", halved[0], halved[1], widths, _settings(epochs, 0.1, 64, augment=True))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of values and the half width of its 95% interval (Student's t)."""
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(stats.t.ppf(0.975, len(values) - 1)) * spread


def shown(values: Sequence[float]) -> str:
    """Format shares as a percentage with its interval."""
    mean, half = interval([100 * value for value in values])
    return f"{mean:.2f}% +- {half:.2f}"


def difference(a: Sequence[float], b: Sequence[float]) -> str:
    """Format what `a` has more than `b`, pair by pair, in points, with its interval."""
    mean, half = interval([100 * (one - two) for one, two in zip(a, b, strict=True)])
    return f"{mean:+.2f} +- {half:.2f}"


def remembered(
    file: Path, seeds: int, measure: Callable[[int], dict[str, list[float]]]
) -> dict[str, list[list[float]]]:
    """Measure seed by seed, and keep the figures in `file`, so that a run that was stopped goes on; print each.

    Returns:
        For each name the figures of every seed.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, list[float]]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for seed in range(len(done), seeds):
        done.append(measure(seed))
        print(f"seed {seed}: {done[-1]}", flush=True)  # noqa: T201 - a script's log
        file.write_text(json.dumps(done), encoding="utf-8")
    return {name: [each[name] for each in done[:seeds]] for name in done[0]}


def _settings(epochs: int, learning_rate: float, batch_size: int, *, augment: bool) -> FinetuneSettings:
    """Return settings for training from scratch."""
    return replace(
        SETTINGS, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, augment=augment, flip=augment
    )


def _labelled(split: Split) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a split that has labels."""
    assert split.labels is not None
    return split.inputs, split.labels
