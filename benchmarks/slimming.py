"""Network Slimming against plain training: the table in results/slimming-cifar10_jpeg.md.

    python benchmarks/slimming.py ../shared

A VGG-11 of a quarter of the width is trained from scratch with and without a penalty on the scales of its batch norms;
then one threshold over all scales cuts channels, and nothing is trained afterwards. Goes on where it was stopped.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _bench import note, table
from _scratch import Task, cifar_task, difference, remembered, shown

from autoprune.evaluation.recalibration import recalibrate
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.pruning.surgery import prune
from autoprune.recovery.finetune import Penalty, finetune
from autoprune.training.penalties import GammaL1, GammaSmoothL1
from autoprune.training.slimming import gamma_scores, slim_plan

WIDTHS = (16, 0, 32, 0, 64, 64, 0, 128, 128, 0, 128, 128)

#: Shares of the channels that are cut.
CUTS = (0.3, 0.5, 0.7)

#: What keeps channels without a scale from putting out a constant.
SHIFTS = "L1, shifts too"

#: A gamma below this is as good as zero.
SMALL = 0.01


def main() -> None:
    """Train, cut and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/")
    parser.add_argument("--strength", type=float, default=0.005)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-slimming"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = cifar_task(arguments.shared, arguments.epochs, arguments.images, WIDTHS)
    penalties = {
        "plain": None,
        "L1": GammaL1(arguments.strength),
        "smooth L1": GammaSmoothL1(arguments.strength),
        SHIFTS: GammaL1(arguments.strength, shifts=True),
    }

    def measure(seed: int) -> dict[str, list[float]]:
        """Return for each penalty: share of small gammas, whole accuracy, those after every cut."""
        return {name: _slimmed(task, penalty, seed) for name, penalty in penalties.items()}

    scores = remembered(arguments.output / f"{task.name}.json", arguments.seeds, measure)
    path = Path(__file__).parent / "results" / f"slimming-{task.name}.md"
    path.write_text(_page(task, scores, arguments.strength), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _slimmed(task: Task, penalty: Penalty | None, seed: int) -> list[float]:
    """Train one network; return the figures of its cuts, as they are and with batch norms recalibrated."""
    start = task.network(seed)
    module = finetune(start.module, *task.train, replace(task.training, seed=seed), penalty=penalty).module
    network = Network(module, start.input_shape, start.shapes)
    groups = find_groups(network)
    units = [unit for group in groups.prunable() for unit in group.units]
    figures = [float(np.mean(gamma_scores(network, groups)[units] < SMALL)), task.accuracy(module)]
    for cut in CUTS:
        pruned = prune(network, groups, slim_plan(network, groups, cut))
        figures.append(task.accuracy(pruned))
        recalibrate(pruned, task.train[0][:1000])
        figures.append(task.accuracy(pruned))
    return figures


def _page(task: Task, scores: Mapping[str, list[list[float]]], strength: float) -> str:
    """Return the tables as Markdown."""
    heads = ["training", f"gammas below {SMALL:g}", "whole"]
    for cut in CUTS:
        heads += [f"{cut:.0%} cut", "recalibrated"]
    columns = {name: [list(column) for column in zip(*each, strict=True)] for name, each in scores.items()}
    rows = [(name, *map(shown, figures)) for name, figures in columns.items()]
    half = 2 + 2 * CUTS.index(0.5)
    lost = [
        (name, difference(figures[1], figures[half]), difference(figures[1], figures[half + 1]))
        for name, figures in columns.items()
    ]
    return (
        f"# Network Slimming: {task.name}\n\n"
        + table(heads, rows)
        + "\n"
        + table(("training", "points lost by cutting 50%", "and recalibrating"), lost)
        + note(
            f"{task.text} {len(scores['plain'])} seeds, means with 95% intervals (Student t). Penalty on the scales of "
            f"batch norms: {strength:g} x their sum; seed 0 at 0.003 and 0.01 told where to look. Channels are cut by "
            "one threshold over all scales; no training after the cut. Recalibrated: statistics of the batch norms "
            "measured again on 1,000 training images."
        )
        + note(
            "What L1 as in the paper loses as it is cut are constants: a channel whose gamma is 0 still puts out "
            "ReLU(beta), up to 0.2 here, which the batch norm behind it expects, and no gradient pulls it to 0. Either "
            "the batch norms are measured again, or the shifts are penalised as well."
        )
    )


if __name__ == "__main__":
    main()
