"""How far a fine-tuning is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the images did.

    Attributes:
        loss: Mean over its steps.
        learning_rate: Of its last step.
        seconds: Wall-clock time.

    """

    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Position:
    """Where a fine-tuning stands between two steps.

    Attributes:
        step: Steps of the schedule that are done.
        history: Every epoch that is complete.
        running: Sum of the losses in the epoch that is not.
        seconds: Wall-clock time of that epoch so far.

    """

    step: int = 0
    history: tuple[Epoch, ...] = ()
    running: float = 0.0
    seconds: float = 0.0
