"""How weights are pruned in rounds."""

from dataclasses import dataclass

from autoprune.errors import SearchError
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.training.masks import Scope
from autoprune.training.rounds import Shares, check_shares


@dataclass(frozen=True, slots=True)
class IterativeSettings:
    """How weights are pruned in rounds.

    Attributes:
        training: Of each round; the seed of round n is that of the settings plus n.
        shares: Share of the weights kept after each round, falling (:mod:`autoprune.training.rounds`).
        rewind_step: Step of the schedule to which weights go back after each round, 0 for the initial ones. The network
            is then trained as a whole first. None: it is trained already, and weights never go back.
        scope: Whether weights compete with all others or with those of their layer.

    """

    training: FinetuneSettings
    shares: Shares
    rewind_step: int | None = 0
    scope: Scope = "global"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A schedule that rises, no epoch, or a step before the first.

        """
        check_shares(self.shares)
        if self.training.epochs < 1:
            raise SearchError(f"pruning in rounds needs at least 1 epoch of training, found {self.training.epochs}")
        if self.rewind_step is not None and self.rewind_step < 0:
            raise SearchError(f"expected a step to rewind to of at least 0, or None, found {self.rewind_step}")

    @property
    def rewinds(self) -> bool:
        """Whether weights go back to an early step after each round."""
        return self.rewind_step is not None

    def check_images(self, images: int) -> None:
        """Make sure that training on so many images reaches the step to rewind to.

        Raises:
            SearchError: It ends before.

        """
        steps = self.training.epochs * self.training.steps_per_epoch(images)
        if (self.rewind_step or 0) >= steps:
            raise SearchError(
                f"expected a step to rewind to below {steps}, the number of steps of one training, "
                f"found {self.rewind_step}"
            )
