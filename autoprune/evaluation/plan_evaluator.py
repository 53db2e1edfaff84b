"""The seam between those who propose plans and whoever scores them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan


@dataclass(frozen=True, slots=True)
class PathPlan(Plan):
    """A plan and the way to it: where candidates are trained on, the scores depend on both.

    Attributes:
        path: The plans before it, from the first to the last; each was trained from the weights of the one before.

    """

    path: tuple[Plan, ...]

    @classmethod
    def of(cls, plan: Plan, path: Sequence[Plan]) -> Self:
        """Return `plan` as the end of `path`."""
        return cls(plan.kept, plan.model_sha256, tuple(path))


class PlanEvaluator(Protocol):
    """Scores plans of one problem; :class:`autoprune.evaluation.evaluator.Evaluator` does it for real.

    Contract:
        * `evaluate` is a pure function of `settings_key`, the plan's kept indices (and those of its path, if it is a
          :class:`PathPlan`) and `images`: equal ones, equal scores, in any order and any process. That is why answers
          can be kept in a journal.
        * It changes neither the problem nor the plan. What it remembers between calls never shows in the answers.
        * It may be sent to another process by pickle.
        * It raises PlanError for a plan of another network and NumericalError where a score is not finite.
    """

    @property
    def problem(self) -> PruningProblem:
        """The problem whose plans are scored; its limits play no part."""
        ...

    @property
    def settings_key(self) -> str:
        """Name of everything besides plan and number of images that the scores depend on."""
        ...

    @property
    def follows_path(self) -> bool:
        """Whether the scores depend on the path of a plan; if not, the evaluator is given plans without one."""
        ...

    @property
    def search_images(self) -> int:
        """Number of images of the search split."""
        ...

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        """Return the scores of the network that `plan` leaves, on the first `images` search images (None: all)."""
        ...
