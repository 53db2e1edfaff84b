"""Evaluation of a plan: prune, recalibrate batch norm on the fit split, score on the search split."""

import hashlib
import json

import torch

from autoprune.datasets.splits import SearchSplits
from autoprune.network.device import default_device
from autoprune.evaluation.metrics import Scores, predict, score, score_logits
from autoprune.evaluation.recalibration import recalibrate
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune

#: Raised whenever the same settings would give other scores: journals of older versions are then not reused.
VERSION = 1

#: Images of the fit split that batch norm is recalibrated on.
RECALIBRATION_IMAGES = 512


class Evaluator:
    """A pure function from plans to scores: same network, splits, settings and plan, same scores.

    It is given the fit and the search split and nothing else. It keeps no state between calls, so any number of
    them, in any order and in any process, give the same answers.

    Attributes:
        problem: The problem whose plans are evaluated.
        settings_key: Names everything the scores depend on besides the plan; equal keys, equal scores.

    """

    def __init__(
        self,
        problem: PruningProblem,
        splits: SearchSplits,
        *,
        recalibration_images: int = RECALIBRATION_IMAGES,
        precision: str = "fp32",
    ) -> None:
        """Prepare the evaluation of plans of `problem`; runs the unpruned network once on the search split."""
        self.problem = problem
        self._splits = splits
        self._precision = precision
        self._recalibration = splits.fit.inputs[:recalibration_images]
        self._reference = predict(problem.network.module, splits.search.inputs, precision=precision)
        facts = {
            "version": VERSION,
            "torch": torch.__version__,
            "device": default_device().type,
            "network": problem.network.fingerprint(),
            "fit": splits.fit.sha256,
            "search": splits.search.sha256,
            "recalibration_images": len(self._recalibration),
            "precision": precision,
        }
        self.settings_key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def evaluate(self, plan: Plan) -> Scores:
        """Return the scores of the network that `plan` leaves, on the search split, without fine-tuning.

        Raises:
            PlanError: The plan does not fit the network.
            NumericalError: The pruned network's statistics or outputs are not finite.

        """
        problem = self.problem
        module = prune(problem.network, problem.all_groups, plan)
        recalibrate(module, self._recalibration)
        return self.score(module)

    def unpruned(self) -> Scores:
        """Return the scores of the unpruned network, its batch norm as trained."""
        return score_logits(self._reference, self._splits.search.labels, reference_logits=self._reference)

    def score(self, module: torch.nn.Module) -> Scores:
        """Return the scores of any network on the search split, beside the unpruned one."""
        search = self._splits.search
        return score(module, search.inputs, search.labels, reference_logits=self._reference, precision=self._precision)
