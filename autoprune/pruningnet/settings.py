"""How a PruningNet is made and trained."""

from dataclasses import dataclass

from autoprune.errors import SearchError
from autoprune.recovery.finetune_settings import FinetuneSettings

#: Units of the hidden layer of every hypernetwork (liuzechun/MetaPruning).
HIDDEN = 32


@dataclass(frozen=True, slots=True)
class PruningNetSettings:
    """How a PruningNet is made and trained; :func:`distilled` and :func:`from_scratch` are the two ways.

    Attributes:
        training: Epochs, optimizer, schedule, loss and seed, as in fine-tuning. Batch norms are never frozen: in
            training each batch has its own statistics. There are no hints.
        scratch: Predict all weights, as in the paper, instead of corrections to the trained ones.
        hidden: Units of the hidden layer of every hypernetwork.

    """

    training: FinetuneSettings
    scratch: bool = False
    hidden: int = HIDDEN

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A number out of range, or a way of fine-tuning that a PruningNet does not know.

        """
        if self.hidden < 1:
            raise SearchError(f"a PruningNet needs at least 1 hidden unit, found {self.hidden}")
        if self.training.epochs < 1:
            raise SearchError(f"a PruningNet is trained for at least 1 epoch, found {self.training.epochs}")
        if self.training.hints > 0 or self.training.freeze_batchnorm:
            raise SearchError(
                "a PruningNet is trained without hints and with the statistics of every batch; set hints=0 and "
                "freeze_batchnorm=False"
            )


def distilled(*, epochs: int, seed: int = 0, augment: bool = True, flip: bool = True) -> PruningNetSettings:
    """Return the default: start from the trained network, learn from its answers alone."""
    training = FinetuneSettings(
        epochs=epochs,
        optimizer="relative-adamw",
        learning_rate=0.003,
        warmup_epochs=0,
        batch_size=64,
        distillation=1.0,
        hints=0,
        freeze_batchnorm=False,
        augment=augment,
        flip=flip,
        seed=seed,
    )
    return PruningNetSettings(training)


def from_scratch(*, epochs: int, seed: int = 0, augment: bool = True, flip: bool = True) -> PruningNetSettings:
    """Return the paper's way: predict whole weights, learn from smoothed labels (Liu 2019, 1903.10258, section 4.1)."""
    training = FinetuneSettings(
        epochs=epochs,
        optimizer="sgd",
        learning_rate=0.1,
        warmup_epochs=0,
        batch_size=64,
        label_smoothing=0.1,
        distillation=0.0,
        hints=0,
        freeze_batchnorm=False,
        augment=augment,
        flip=flip,
        seed=seed,
    )
    return PruningNetSettings(training, scratch=True)
