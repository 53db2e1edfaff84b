"""What an evaluation says, and what it took."""

from dataclasses import dataclass

from autoprune.evaluation.metrics import Scores


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The scores of one plan.

    Attributes:
        scores: What its network scored.
        seconds: Wall time of the evaluation where and when it ran; None in journals of before times were kept.

    """

    scores: Scores
    seconds: float | None
