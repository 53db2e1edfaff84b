"""The seam between those who propose plans and whoever scores them."""

from typing import Protocol

from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan


class PlanEvaluator(Protocol):
    """Scores plans of one problem; :class:`autoprune.evaluation.evaluator.Evaluator` does it for real.

    Contract:
        * `evaluate` is a pure function of `settings_key` and the plan's kept indices: same key, same plan, same scores,
          in any order and any process. That is why answers can be kept in a journal.
        * It changes neither the problem nor the plan, and keeps nothing between calls.
        * It raises PlanError for a plan of another network and NumericalError where a score is not finite.
    """

    @property
    def problem(self) -> PruningProblem:
        """The problem whose plans are scored; its limits play no part."""
        ...

    @property
    def settings_key(self) -> str:
        """Name of everything besides the plan that the scores depend on."""
        ...

    def evaluate(self, plan: Plan) -> Scores:
        """Return the scores of the network that `plan` leaves."""
        ...
