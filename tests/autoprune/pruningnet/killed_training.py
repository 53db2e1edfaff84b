"""A PruningNet trained in a process of its own: ``python -m tests.autoprune.pruningnet.killed_training FILE``."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from autoprune.pruningnet.settings import PruningNetSettings, distilled
from autoprune.pruningnet.training import TrainedPruningNet, train_pruningnet
from autoprune.recovery.finetune import Progress
from tests.search.small_problems import real_splits, small_problem

#: Six epochs of four steps on random images.
STEPS = 24


def settings() -> PruningNetSettings:
    """Small batches of 8x8 images, which are not augmented; the learning rate falls."""
    made = distilled(epochs=6, seed=4)
    return replace(made, hidden=4, training=replace(made.training, batch_size=8, learning_rate=0.01))


def run(checkpoint: Path | None, progress: Progress | None = None) -> TrainedPruningNet:
    """Train, with a checkpoint after every step."""
    return train_pruningnet(
        small_problem(), real_splits().fit, settings(), checkpoint=checkpoint, checkpoint_s=0, progress=progress
    )


def digest(file: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), lambda done, total, text: print(done, flush=True))  # noqa: T201
