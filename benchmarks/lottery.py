"""Winning tickets against other networks with as many weights: the table in results/lottery-DATA.md.

    python benchmarks/lottery.py --data digits
    python benchmarks/lottery.py --data cifar --shared ../shared

Weights are pruned by magnitude, over all layers, in rounds; the control are the same masks over another random
initialisation. Goes on where it was stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from _bench import note, table
from _scratch import Task, cifar_task, difference, digits_task, remembered, shown

from autoprune.network.masked import masked
from autoprune.recovery.finetune import finetune
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import MaskKeeper
from autoprune.training.rounds import exponential

#: Of the initial weights of the control, apart from those of all seeds.
CONTROL = 1000

WINNING, LATE, RANDOM = "ticket, rewound to step 0", "ticket, rewound to step k", "same masks, other initial weights"


def main() -> None:
    """Find tickets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "cifar"], default="digits")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/")
    parser.add_argument("--kept", type=float, default=0.2, help="share of the weights that is kept in the end")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-lottery"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = arguments.data == "digits"
    task = digits_task(4, 600) if digits else cifar_task(arguments.shared, 8, 2000, (8, 16, 0, 32, 32))
    late = task.training.steps_per_epoch(len(task.train[0])) // 2
    shares = exponential(arguments.kept, arguments.rounds)

    def measure(seed: int) -> dict[str, list[float]]:
        """Return the accuracies of one seed, those of tickets after every round."""
        training = replace(task.training, seed=100 * seed)
        found = {
            name: prune_in_rounds(
                task.network(seed),
                *task.train,
                IterativeSettings(training, shares, step),
                folder=arguments.output / task.name / f"{seed}-{step}",
            )
            for name, step in ((WINNING, 0), (LATE, late))
        }
        masks = found[WINNING].masks
        control = finetune(
            masked(task.network(seed + CONTROL), masks).module,
            *task.train,
            replace(training, seed=training.seed + arguments.rounds),
            after_step=MaskKeeper(masks),
        )
        tickets = {name: [task.accuracy(r.network.module) for r in ticket.rounds] for name, ticket in found.items()}
        return {**tickets, RANDOM: [task.accuracy(control.module)]}

    scores = remembered(arguments.output / f"{task.name}.json", arguments.seeds, measure)
    path = Path(__file__).parent / "results" / f"lottery-{task.name}.md"
    path.write_text(_page(task, scores, shares, late), encoding="utf-8")
    print(path.read_text(encoding="utf-8"))  # noqa: T201 - a script's result


def _page(task: Task, scores: dict[str, list[list[float]]], shares: tuple[float, ...], late: int) -> str:
    """Return the tables as Markdown."""

    def after(name: str, number: int) -> list[float]:
        return [each[number] for each in scores[name]]

    rows = [
        (f"{share:.1%}", *(shown(after(name, number)) for name in (WINNING, LATE)))
        for number, share in enumerate((1.0, *shares))
    ]
    last = {name: after(name, -1) for name in scores}
    pairs = [(WINNING, RANDOM), (LATE, RANDOM), (LATE, WINNING)]
    return (
        f"# Lottery tickets: {task.name}\n\n"
        + table(("weights kept", WINNING, LATE), rows)
        + f"\n{RANDOM}, {shares[-1]:.0%} kept: {shown(last[RANDOM])}\n\n"
        + table(
            (f"at {shares[-1]:.0%} of the weights", "points of top-1"),
            [(f"{a}, less: {b}", difference(last[a], last[b])) for a, b in pairs],
        )
        + note(
            f"{task.text} {len(last[RANDOM])} seeds, means with 95% intervals (Student t); differences are paired by "
            f"seed. k = {late}, half an epoch. Weights are pruned by magnitude over all layers; each round trains for "
            "the whole schedule, or for what is left of it behind step k. Accuracy on test images after training."
        )
    )


if __name__ == "__main__":
    main()
