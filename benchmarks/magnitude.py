"""Magnitude pruning at once and in rounds: the tables in results/magnitude-DATA.md.

    python benchmarks/magnitude.py
    python benchmarks/magnitude.py --data cifar --shared ../shared

Han et al. 2015: a network is trained, its smallest weights go, the rest is trained on. In rounds, one run passes all
shares; at once, each share has a run that trains as long after pruning as the rounds did up to there. Frankle & Carbin
2019: the rest is put back to the initial weights, and trained from there. Goes on where it was stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from _bench import note, table
from _scratch import Task, cifar_task, difference, digits_task, remembered, shown

from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.recovery.finetune import Penalty, finetune
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import MaskKeeper, full_masks, smaller_masks
from autoprune.training.penalties import WeightL1
from autoprune.training.weight_scores import magnitude

SHARES = (0.5, 0.2, 0.1, 0.05, 0.03)

#: What is compared on each data.
TRAININGS = {"digits": ("L2", "L1"), "cifar10_jpeg": ("rewound",)}

IN_ROUNDS, AT_ONCE = "in rounds", "at once"


def main() -> None:
    """Prune and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "cifar"], default="digits")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/")
    parser.add_argument("--l1", type=float, default=1e-4, help="strength of the L1 penalty")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-magnitude"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = arguments.data == "digits"
    task = digits_task(6, 600) if digits else cifar_task(arguments.shared, 8, 2000, (8, 16, 0, 32, 32))

    def measure(seed: int) -> dict[str, list[float]]:
        """Return the accuracies of one seed: before pruning, and at every share."""
        if not digits:
            return _rewound(task, seed)
        return _curves(task, seed, None, "L2") | _curves(task, seed, WeightL1(arguments.l1), "L1")

    scores = remembered(arguments.output / f"{task.name}.json", arguments.seeds, measure)
    path = Path(__file__).parent / "results" / f"magnitude-{task.name}.md"
    path.write_text(_page(task, scores, arguments.l1), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _curves(task: Task, seed: int, penalty: Penalty | None, name: str) -> dict[str, list[float]]:
    """Train with one penalty, prune both ways."""
    training = replace(task.training, seed=100 * seed, weight_decay=task.training.weight_decay if name == "L2" else 0.0)
    start = task.network(seed)
    module = finetune(start.module, *task.train, training, penalty=penalty).module
    whole = Network(module, start.input_shape, start.shapes)
    after = replace(training, epochs=training.epochs // 2, learning_rate=training.learning_rate / 2)

    def pruned(shares: tuple[float, ...], epochs: int) -> list[float]:
        settings = IterativeSettings(replace(after, epochs=epochs), shares, None)
        found = prune_in_rounds(whole, *task.train, settings, penalty=penalty)
        return [task.accuracy(each.network.module) for each in found.rounds]

    first = [task.accuracy(module)]
    at_once = [pruned((share,), number * after.epochs)[0] for number, share in enumerate(SHARES, start=1)]
    return {f"{name}, {IN_ROUNDS}": first + pruned(SHARES, after.epochs), f"{name}, {AT_ONCE}": first + at_once}


def _rewound(task: Task, seed: int) -> dict[str, list[float]]:
    """Find tickets in rounds and at once; those of the same share are trained alike."""
    start, training = task.network(seed), replace(task.training, seed=100 * seed)
    found = prune_in_rounds(start, *task.train, IterativeSettings(training, SHARES, 0))
    whole, at_once = found.rounds[0].network, []
    for number, share in enumerate(SHARES, start=1):
        masks = smaller_masks(full_masks(whole), magnitude(whole), share)
        again = replace(training, seed=training.seed + number)
        module = finetune(masked(start, masks).module, *task.train, again, after_step=MaskKeeper(masks)).module
        at_once.append(task.accuracy(module))
    in_rounds = [task.accuracy(each.network.module) for each in found.rounds]
    return {f"rewound, {IN_ROUNDS}": in_rounds, f"rewound, {AT_ONCE}": in_rounds[:1] + at_once}


def _page(task: Task, scores: dict[str, list[list[float]]], strength: float) -> str:
    """Return the table as Markdown."""
    names = TRAININGS[task.name]
    ways = [f"{name}, {way}" for name in names for way in (IN_ROUNDS, AT_ONCE)]
    rows = []
    for number, share in enumerate((1.0, *SHARES)):
        column = {way: [each[number] for each in scores[way]] for way in ways}
        gains = [difference(column[f"{name}, {IN_ROUNDS}"], column[f"{name}, {AT_ONCE}"]) for name in names]
        rows.append((f"{share:.0%}", *(shown(column[way]) for way in ways), *(gains if number else ("", ""))))
    heads = ("weights kept", *ways, *(f"rounds less at once, {name} (points)" for name in names))
    half = task.training.epochs // 2
    later = f"After each round {half} epochs at half the learning rate, at once as many as the rounds up to there."
    of_each = {
        "L2": f"L2: weight decay of {task.training.weight_decay:g}.",
        "L1": f"L1: {strength:g} x the sum of the magnitudes, no weight decay. {later}",
        "rewound": "Rewound: what stays goes back to its initial value and is trained like the whole network (lottery "
        "tickets); at once, the magnitudes are those of the trained whole network. At 3% at once the last convolution "
        "keeps no weight with four of the five seeds (layer collapse: answers are chance), and 2 with the other.",
    }
    return (
        f"# Magnitude pruning at once and in rounds: {task.name}\n\n"
        + table(heads, rows)
        + note(
            f"{task.text} {len(scores[ways[0]])} seeds, means with 95% intervals (Student t); differences are paired "
            f"by seed. {' '.join(of_each[name] for name in names)} Weights compete over all layers. Accuracy on test "
            "images after training."
        )
    )


if __name__ == "__main__":
    main()
