"""Evaluation of a plan for single weights: mask, recalibrate batch norm on the fit split, score on the search split."""

from torch import fx

from autoprune.datasets.splits import SearchSplits
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.metrics import Scores, predict, score_logits
from autoprune.evaluation.recalibration import recalibrate
from autoprune.pruning.weight_masks import WeightPlan, mask_weights
from autoprune.pruning.weight_problem import WeightPruningProblem


class WeightEvaluator:
    """A pure function from plans to scores: same network, splits, settings and plan, same scores.

    Masked candidates have the shape of the unpruned network and cost as much to run. One instance belongs to one thread
    at a time.

    Attributes:
        problem: The problem whose plans are evaluated.

    """

    def __init__(
        self,
        problem: WeightPruningProblem,
        splits: SearchSplits,
        *,
        recalibration_images: int = RECALIBRATION_IMAGES,
        precision: str = "fp32",
    ) -> None:
        """Prepare the evaluation of plans of `problem`; runs the unpruned network once on the search split.

        Args:
            problem: The problem whose plans are evaluated.
            splits: Images to recalibrate and to score on.
            recalibration_images: Batch norm is recalibrated on the first so many images of the fit split.
            precision: Of the scored outputs, ``"fp32"`` or ``"bf16"``.

        """
        self.problem = problem
        self._precision = precision
        self._recalibration = splits.fit.inputs[:recalibration_images].clone()  # a view would take all images along
        self._search = splits.search
        self._reference = predict(problem.network.module, splits.search.inputs, precision=precision)

    def evaluate(self, plan: WeightPlan) -> Scores:
        """Return the scores of the network that `plan` leaves, on the search split, without fine-tuning.

        Raises:
            PlanError: The plan does not fit the network.
            NumericalError: The network's statistics or outputs are not finite.

        """
        logits = predict(self.candidate(plan), self._search.inputs, precision=self._precision)
        return score_logits(logits, self._search.labels, reference_logits=self._reference)

    def candidate(self, plan: WeightPlan) -> fx.GraphModule:
        """Return the network that `plan` leaves as it is scored: masked and recalibrated.

        Raises:
            PlanError: The plan does not fit the network.
            NumericalError: The network's statistics are not finite.

        """
        module = mask_weights(self.problem.network, plan, self.problem.scores)
        recalibrate(module, self._recalibration)
        return module

    def unpruned(self) -> Scores:
        """Return the scores of the unpruned network, its batch norm as trained."""
        return score_logits(self._reference, self._search.labels, reference_logits=self._reference)
