"""What all sections of the benchmark share: the data, the networks, and how tables are written."""

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from _candidates import Candidates

from autoprune.costs.budget import Budget
from autoprune.datasets.dataset import ImageDataset
from autoprune.datasets.splits import Splits, make_splits
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.formats.load import load_network
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.network import Network
from autoprune.problem import pruning_problem
from autoprune.reconstruction.gram import collect_grams
from autoprune.zoo.registry import build

BUDGET = "macs=50%"
RESNET20, RESNET56, VGG11 = "resnet20_cifar10_jpeg", "resnet56_cifar10_jpeg", "vgg11_bn_cifar10_jpeg"

#: Fit images behind the Gram statistics where only time is measured, which does not depend on them.
FEW = 128

Row = Sequence[object]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bench:
    """What every section is given: the data, and how much to measure (see the options)."""

    models: Path
    train: ImageDataset
    test: ImageDataset
    images: int
    rounds: int
    seeds: int
    gram_images: tuple[int, ...]
    gram_points: tuple[int, ...]
    reference_images: int

    def network(self, name: str) -> Network:
        """Return a reference network by the name of its file, or a fresh one by that of its architecture."""
        path = self.models / f"{name}.onnx"
        return load_network(path) if path.exists() else build(name)

    def splits(self, *, fit: int, search: int, report: int | None = None, seed: int = 0) -> Splits:
        """Deal images out; the report split is of the test images, all of them by default."""
        return make_splits(
            self.train, report_dataset=self.test, fit_images=fit, search_images=search, report_images=report, seed=seed
        )

    def candidates(self, name: str, images: int) -> Candidates:
        """Return the candidates of a network; channels are ordered by L1, which takes no time.

        Their evaluator remembers no activations, so that every evaluation runs the whole network.
        """
        splits = self.splits(fit=RECALIBRATION_IMAGES, search=images, report=10).for_search()
        network = measure_batchnorm(self.network(name), splits.fit.inputs)
        problem = pruning_problem(network, Budget.parse(BUDGET))
        grams = collect_grams(network, problem.groups, splits.fit.inputs[:FEW])
        return Candidates.of(dataclasses.replace(problem, statistics=grams), splits, memory_bytes=0)


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def note(text: str) -> str:
    """Return a paragraph."""
    return "\n" + textwrap.fill(text, 118, break_on_hyphens=False) + "\n"


def middle(ratios: Iterable[float]) -> str:
    """Format the median of ratios."""
    return f"{median(ratios):.2f}"


def share(shares: Iterable[float]) -> str:
    """Format the median of shares."""
    return f"{median(shares):.1%}"


def told(what: str, items: Sequence[_T]) -> Iterable[_T]:
    """Yield the items, and print how far it is."""
    for number, item in enumerate(items, start=1):
        print(f"{what}: {number} of {len(items)}", flush=True)  # noqa: T201 - a script's log
        yield item
