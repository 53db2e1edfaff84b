"""Evaluation of a plan with predicted weights: no reconstruction, no training."""

import hashlib
import json

from torch import fx

from autoprune.errors import SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruningnet.pruningnet import PruningNet

#: Raised whenever the same PruningNet would give other scores: answers of older versions are then not reused.
VERSION = 1


class PredictedEvaluator:
    """Scores candidates whose weights a trained PruningNet predicts, batch norm recalibrated (MetaPruning's search).

    A pure function from plans to scores, as :class:`autoprune.evaluation.plan_evaluator.PlanEvaluator` says.

    Attributes:
        problem: The problem whose plans are evaluated.
        settings_key: Names everything the scores depend on besides plan and number of images: the PruningNet by its
            weights, not by how they were trained.

    """

    follows_path = False

    def __init__(self, evaluator: Evaluator, net: PruningNet) -> None:
        """Score with `evaluator` what `net` predicts.

        Args:
            evaluator: Recalibrates and scores.
            net: Of the same network; must not be trained on meanwhile.

        Raises:
            SearchError: Evaluator and PruningNet are of different networks.

        """
        if net.problem.network is not evaluator.problem.network:
            raise SearchError("the PruningNet was made for another network than the evaluator's; use the same problem")
        self.problem: PruningProblem = evaluator.problem
        self._evaluator, self._net = evaluator, net
        facts = {"version": VERSION, "evaluator": evaluator.settings_key, "net": net.fingerprint()}
        self.settings_key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def search_images(self) -> int:
        """Number of images of the search split."""
        return self._evaluator.search_images

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        """Return the scores on the search split of the network that `plan` leaves, with predicted weights.

        Raises:
            PlanError: The plan does not fit the network.
            SearchError: Not a number of search images.
            NumericalError: Statistics or outputs are not finite.

        """
        return self._evaluator.score(self.candidate(plan), images=images)

    def candidate(self, plan: Plan) -> fx.GraphModule:
        """Return the network that `plan` leaves as it is scored: predicted weights, recalibrated.

        Raises:
            PlanError: The plan does not fit the network.
            NumericalError: Statistics are not finite.

        """
        return self._evaluator.recalibrated(self._net.candidate(plan))
