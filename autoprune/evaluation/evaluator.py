"""Evaluation of a plan: prune, reconstruct, recalibrate batch norm on the fit split, score on the search split."""

import hashlib
import json

import torch
from torch import fx

from autoprune.datasets.splits import SearchSplits
from autoprune.errors import SearchError
from autoprune.evaluation.candidate_runner import MEMORY_BYTES, CandidateRunner
from autoprune.evaluation.metrics import Scores, predict, score_logits
from autoprune.evaluation.recalibration import recalibrate
from autoprune.network.device import default_device
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.least_squares import PULL
from autoprune.reconstruction.reconstructor import Reconstructor

#: Raised whenever the same settings would give other scores: journals of older versions are then not reused.
VERSION = 2

#: Images of the fit split that batch norm is recalibrated on.
RECALIBRATION_IMAGES = 512


class Evaluator:
    """A pure function from plans to scores: same network, splits, settings and plan, same scores.

    It is given the fit and the search split and nothing else. Candidates are reconstructed where the problem has Gram
    statistics, and always recalibrated. What it remembers between calls, solved layers and activations of the last
    plan, saves time and never changes an answer, so any number of calls, in any order and in any process, give the
    same scores. One instance belongs to one thread at a time.

    Attributes:
        problem: The problem whose plans are evaluated.
        settings: Everything the scores depend on besides plan and number of images, JSON-ready.
        settings_key: Names all of that.

    """

    follows_path = False

    def __init__(
        self,
        problem: PruningProblem,
        splits: SearchSplits,
        *,
        recalibration_images: int = RECALIBRATION_IMAGES,
        precision: str = "fp32",
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Prepare the evaluation of plans of `problem`; runs the unpruned network once on the search split.

        Args:
            problem: The problem whose plans are evaluated.
            splits: Images to recalibrate and to score on.
            recalibration_images: Batch norm is recalibrated on the first so many images of the fit split.
            precision: Of the scored outputs, ``"fp32"`` or ``"bf16"``.
            memory_bytes: Bound on the activations of the last plan that are remembered.

        Raises:
            SearchError: A negative bound.

        """
        self.problem = problem
        self._precision = precision
        self._recalibration = splits.fit.inputs[:recalibration_images].clone()  # a view would take all images along
        self._search = splits.search
        self._runner = CandidateRunner(
            problem, self._recalibration, self._search.inputs, memory_bytes=memory_bytes, precision=precision
        )
        self._reference = predict(problem.network.module, splits.search.inputs, precision=precision)
        statistics = problem.statistics
        self._reconstructor = (
            None if statistics is None else Reconstructor(problem.network, problem.all_groups, statistics)
        )
        self.settings: dict[str, object] = {
            "version": VERSION,
            "torch": torch.__version__,
            "device": default_device().type,
            "threads": torch.get_num_threads(),  # sums are split among them
            "network": problem.network.fingerprint(),
            "fit": splits.fit.sha256,
            "search": splits.search.sha256,
            "recalibration_images": len(self._recalibration),
            "precision": precision,
            "reconstruction": None if statistics is None else [statistics.key, sorted(statistics.grams), PULL],
        }
        self.settings_key = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def search_images(self) -> int:
        """Number of images of the search split."""
        return len(self._search)

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        """Return the scores of the network that `plan` leaves, on the search split, without fine-tuning.

        Args:
            plan: What to keep.
            images: Score on the first so many search images; None for all.

        Raises:
            PlanError: The plan does not fit the network.
            SearchError: Not a number of search images.
            NumericalError: The pruned network's statistics or outputs are not finite.

        """
        self._check(images)
        return self._scores(self._runner.logits(self.reconstructed(plan), plan, images))

    def candidate(self, plan: Plan) -> fx.GraphModule:
        """Return the network that `plan` leaves as it is scored: pruned, reconstructed, recalibrated.

        Raises:
            PlanError: The plan does not fit the network.
            NumericalError: The pruned network's statistics are not finite.

        """
        return self.recalibrated(self.reconstructed(plan))

    def recalibrated(self, module: fx.GraphModule) -> fx.GraphModule:
        """Return `module` itself, its batch norm recalibrated on the images that this evaluator takes for that.

        Raises:
            NumericalError: The network's statistics are not finite.

        """
        recalibrate(module, self._recalibration)
        return module

    def reconstructed(self, plan: Plan) -> fx.GraphModule:
        """Return the network that `plan` leaves, reconstructed, with the batch norm statistics of the unpruned one.

        Raises:
            PlanError: The plan does not fit the network.

        """
        module = prune(self.problem.network, self.problem.all_groups, plan)
        if self._reconstructor is not None:
            self._reconstructor.apply(module, plan)
        return module

    def unsolved(self, plan: Plan) -> tuple[str, ...]:
        """Return the layers that keep their trained weights under `plan` because their equations are singular."""
        module = prune(self.problem.network, self.problem.all_groups, plan)
        return () if self._reconstructor is None else self._reconstructor.apply(module, plan)

    def unpruned(self) -> Scores:
        """Return the scores of the unpruned network, its batch norm as trained."""
        return score_logits(self._reference, self._search.labels, reference_logits=self._reference)

    def score(self, module: torch.nn.Module, *, images: int | None = None) -> Scores:
        """Return the scores of any network on the first `images` search images (None: all), beside the unpruned one.

        Raises:
            SearchError: Not a number of search images.
            NumericalError: An output is not finite.

        """
        self._check(images)
        return self._scores(predict(module, self._search.inputs[:images], precision=self._precision))

    def _check(self, images: int | None) -> None:
        """Make sure there are as many search images."""
        if images is not None and not 1 <= images <= len(self._search):
            raise SearchError(f"expected 1 to {len(self._search)} search images to score on, found {images}")

    def _scores(self, logits: torch.Tensor) -> Scores:
        """Score outputs for the first search images."""
        images, labels = len(logits), self._search.labels
        return score_logits(
            logits, None if labels is None else labels[:images], reference_logits=self._reference[:images]
        )
