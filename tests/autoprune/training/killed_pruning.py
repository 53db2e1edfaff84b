"""Lottery tickets looked for in a process of its own: ``python -m tests.autoprune.training.killed_pruning FOLDER``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from autoprune.recovery.finetune import Progress
from autoprune.training.iterative_pruning import Ticket, prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.rounds import exponential
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, digits_network, digits_splits

#: Ten steps a training, of 320 images.
IMAGES, STEPS = 320, 10


def settings(rewind_step: int | None = 3) -> IterativeSettings:
    """Three rounds of one epoch, down to 30% of the weights."""
    return IterativeSettings(replace(FROM_SCRATCH, epochs=1), exponential(0.3, 3), rewind_step)


def run(folder: Path | None, progress: Progress | None = None, rewind_step: int | None = 3) -> Ticket:
    """Prune in rounds."""
    fit = digits_splits().fit
    labels = None if fit.labels is None else fit.labels[:IMAGES]
    return prune_in_rounds(
        digits_network(), fit.inputs[:IMAGES], labels, settings(rewind_step),
        folder=folder, progress=progress, device=CPU,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), lambda done, total, text: print(done, flush=True))  # noqa: T201
