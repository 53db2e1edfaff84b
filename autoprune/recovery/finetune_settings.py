"""How a pruned network is trained again."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from autoprune.errors import SearchError

Optimizer = Literal["sgd", "adamw", "relative-adamw"]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How to fine-tune; the defaults suit networks that lost half of their MACs and were refitted.

    Such a network is close to the best that its weights allow, and most settings that train a network from scratch
    first lead away from it. The defaults do not: each step changes a tensor by at most 0.3% of its size, batch norms
    add no noise, and the unpruned network teaches its features besides its answers, of which it is too sure on images
    it was trained on. docs/adr/0007-fine-tuning.md has what was measured.

    Attributes:
        epochs: Passes over the images; 0 returns a copy.
        optimizer: ``"sgd"`` (with Nesterov momentum), ``"adamw"``, or ``"relative-adamw"``: AdamW whose rate is
            multiplied, for every tensor, by the root mean square of its values before training (as in Adafactor,
            Shazeer 2018, 1804.04235, section 8). Batch norms that were folded and refitted layers leave weights of
            very different sizes, for which no single rate is right.
        learning_rate: Highest rate; falls to 0 along half a cosine, step by step (Loshchilov 2017, 1608.03983).
        warmup_epochs: Passes, also a part of one, in which the rate first rises linearly from 0; fewer than `epochs`.
        momentum: Of SGD.
        weight_decay: On weights; none on biases and batch norm.
        batch_size: Images per step.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy 2016, 1512.00567, section 7).
        distillation: Share of the teacher in the loss, 0 to 1, the labels having the rest. Without labels
            it counts as 1, without a teacher as 0.
        temperature: Of both distributions in the distillation (Hinton 2015, 1503.02531).
        hints: Weight, beside that loss, of the distance between pruned and unpruned network at the ends of residual
            blocks: squared errors relative to the mean square, mean over the blocks (Romero 2015, 1412.6550). 0 for
            none; without a teacher, or where no block kept its width, it counts as 0.
        freeze_batchnorm: Keep the statistics of batch norms as they are instead of taking each batch's. The network
            that is trained is then the one that was refitted, and a teacher's outputs are met without their noise.
        augment: Random crops after padding by 1/8 of the side (4 of 32); images below 16 pixels stay as they are.
        flip: Mirror half of the images too; only with `augment`. Not for digits, letters or traffic signs.
        seed: Of shuffling, augmentation and the network's own randomness.

    """

    epochs: int = 3
    optimizer: Optimizer = "relative-adamw"
    learning_rate: float = 0.003
    warmup_epochs: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    label_smoothing: float = 0.0
    distillation: float = 1.0
    temperature: float = 4.0
    hints: float = 10.0
    freeze_batchnorm: bool = True
    augment: bool = True
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value; NaN is out of range everywhere."""
        checks = {
            "epochs": (_whole(self.epochs, 0), "a whole number, at least 0"),
            "optimizer": (self.optimizer in get_args(Optimizer), "'sgd', 'adamw' or 'relative-adamw'"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "warmup_epochs": (
                0 <= self.warmup_epochs < max(1, self.epochs),
                f"a number, at least 0 and fewer than the {self.epochs} epochs",
            ),
            "momentum": (0 <= self.momentum < 1, "a number from 0 to below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number, at least 0"),
            "batch_size": (_whole(self.batch_size, 2), "a whole number, at least 2"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "a number from 0 to below 1"),
            "distillation": (0 <= self.distillation <= 1, "a number from 0 to 1"),
            "temperature": (0 < self.temperature < math.inf, "a number above 0"),
            "hints": (0 <= self.hints < math.inf, "a number, at least 0"),
            "seed": (_whole(self.seed, 0) and self.seed < 2**63, "a whole number from 0 to below 2^63"),
        }
        wrong = [
            f"{name} must be {expected}, found {getattr(self, name)!r}"
            for name, (holds, expected) in checks.items()
            if not holds
        ]
        if wrong:
            raise SearchError(f"fine-tuning settings: {'; '.join(wrong)}")

    def steps_per_epoch(self, images: int) -> int:
        """Return the number of steps of one pass over so many images; those behind the last full batch are left out."""
        return images // min(images, self.batch_size)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0 over all epochs."""
        warmup, total = round(self.warmup_epochs * steps_per_epoch), self.epochs * steps_per_epoch
        warmup = min(warmup, total - 1)  # the fall needs a step
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def _whole(value: object, least: int) -> bool:
    """Tell whether `value` is an integer (not a bool) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
