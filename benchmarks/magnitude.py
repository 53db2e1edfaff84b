"""Magnitude pruning at once and in rounds, with L2 and L1: the table in results/magnitude-digits.md.

    python benchmarks/magnitude.py

Han et al. 2015: a network is trained, its smallest weights go, the rest is trained on. In rounds, one run passes all
shares; at once, each share has a run that trains as long after pruning as the rounds did up to there. Goes on where it
was stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from _bench import note, table
from _scratch import Task, difference, digits_task, remembered, shown

from autoprune.network.network import Network
from autoprune.recovery.finetune import Penalty, finetune
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.penalties import WeightL1

SHARES = (0.5, 0.2, 0.1, 0.05, 0.03)

WAYS = ("L2, in rounds", "L2, at once", "L1, in rounds", "L1, at once")


def main() -> None:
    """Prune and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l1", type=float, default=1e-4, help="strength of the L1 penalty")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-magnitude"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = digits_task(6, 600)

    def measure(seed: int) -> dict[str, list[float]]:
        """Return the accuracies of one seed: before pruning, and at every share."""
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
    return {f"{name}, in rounds": first + pruned(SHARES, after.epochs), f"{name}, at once": first + at_once}


def _page(task: Task, scores: dict[str, list[list[float]]], strength: float) -> str:
    """Return the table as Markdown."""
    rows = []
    for number, share in enumerate((1.0, *SHARES)):
        column = {way: [each[number] for each in scores[way]] for way in WAYS}
        gains = [difference(column[f"{name}, in rounds"], column[f"{name}, at once"]) for name in ("L2", "L1")]
        rows.append((f"{share:.0%}", *(shown(column[way]) for way in WAYS), *(gains if number else ("", ""))))
    heads = ("weights kept", *WAYS, "rounds less at once, L2 (points)", "rounds less at once, L1 (points)")
    return (
        f"# Magnitude pruning at once and in rounds: {task.name}\n\n"
        + table(heads, rows)
        + note(
            f"{task.text} {len(scores[WAYS[0]])} seeds, means with 95% intervals (Student t); differences are paired "
            f"by seed. L2: weight decay of {task.training.weight_decay:g}; L1: {strength:g} x the sum of the "
            f"magnitudes, no weight decay. After each round {task.training.epochs // 2} epochs at half the learning "
            "rate, after pruning at once as many as the rounds up to that share had together. Weights compete over "
            "all layers. Accuracy on test images after training."
        )
    )


if __name__ == "__main__":
    main()
