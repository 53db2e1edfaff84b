"""Evaluation of a plan after a short training, from the weights of the plan before it on a path."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, fx

from autoprune.datasets.splits import SearchSplits
from autoprune.errors import SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.network.network import Network
from autoprune.problem import PruningProblem
from autoprune.pruning.places import numbered
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings

#: Raised whenever the same settings would give other weights: older checkpoints and answers are then not reused.
VERSION = 1

#: Of a short training: a tenth of the rate of a long one, which would undo more in its few steps than it mends.
SETTINGS = FinetuneSettings(
    optimizer="sgd",
    learning_rate=0.01,
    warmup_epochs=0,
    batch_size=64,
    distillation=0.5,
    hints=0,
    freeze_batchnorm=False,
)

#: What training changed, by parameter, in the shapes of the unpruned network, 0 where a channel was gone.
Change = Mapping[str, Tensor]


class TunedEvaluator:
    """Scores candidates after so many steps of training on the fit split (NetAdapt's short-term fine-tuning).

    A candidate starts from its reconstruction, as in :class:`autoprune.evaluation.evaluator.Evaluator`, plus what the
    training of the plans before it on its path (:class:`autoprune.evaluation.plan_evaluator.PathPlan`) has changed in
    the weights it shares with them. So nothing that was learned is lost, the channels that go are made up for as ever,
    and those that come back need no weights of their own. A plan without a path starts from its reconstruction alone.

    Scores are a pure function of settings, plan and path: the training is seeded, takes other images of the fit split
    at each depth of the path, and uses no state from outside. What each training changed is kept in `checkpoints`, by
    hash of settings and path, as safetensors. They save time and never change an answer: one that is missing or
    damaged is computed again, from the last one before it that is there, in the worst case all along the path.
    Checkpoints of proposals that were not taken are removed once the path goes on. Processes may share the folder; it
    goes along to workers by its path alone.

    Attributes:
        problem: The problem whose plans are evaluated.
        settings_key: Names everything the scores depend on besides plan, path and number of images.

    """

    follows_path = True

    def __init__(
        self,
        evaluator: Evaluator,
        splits: SearchSplits,
        *,
        steps: int,
        checkpoints: Path,
        settings: FinetuneSettings = SETTINGS,
        precision: str = "fp32",
    ) -> None:
        """Prepare the training of candidates; makes the folder.

        Args:
            evaluator: Reconstructs, recalibrates and scores.
            splits: Those of `evaluator`; candidates are trained on the fit split.
            steps: Of each training; rounded up to whole passes where there are fewer images than that takes.
            checkpoints: Folder for what was trained.
            settings: How to train; the number of epochs follows from `steps`.
            precision: Of the training, as in :func:`autoprune.recovery.finetune.finetune`.

        Raises:
            SearchError: Not a single step: use `evaluator` itself.

        """
        if steps < 1:
            raise SearchError(f"short-term training needs at least 1 step, found {steps}; without, use Evaluator")
        self.problem: PruningProblem = evaluator.problem
        self._evaluator, self._fit, self._steps = evaluator, splits.fit, steps
        self._settings, self._checkpoints, self._precision = settings, checkpoints, precision
        self._last: tuple[str, Change] | None = None
        self._numbers: Network | None = None
        checkpoints.mkdir(parents=True, exist_ok=True)
        facts = {
            "version": VERSION,
            "evaluator": evaluator.settings_key,
            "fit": splits.fit.sha256,
            "steps": steps,
            "settings": asdict(settings),
            **({} if precision == "fp32" else {"precision": precision}),
        }
        self.settings_key = _sha256(json.dumps(facts, sort_keys=True))

    def __getstate__(self) -> Mapping[str, Any]:
        """Leave out what is remembered."""
        return {**vars(self), "_last": None, "_numbers": None}

    @property
    def search_images(self) -> int:
        """Number of images of the search split."""
        return self._evaluator.search_images

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        """Return the scores on the search split of the network that `plan` leaves, after its short training.

        Raises:
            PlanError: The plan, or one before it, does not fit the network.
            SearchError: Not a number of search images.
            NumericalError: The training diverged, or outputs are not finite.

        """
        return self._evaluator.score(self.candidate(plan), images=images)

    def candidate(self, plan: Plan) -> fx.GraphModule:
        """Return the network that `plan` leaves as it is scored: reconstructed, trained, recalibrated.

        Raises:
            PlanError: The plan, or one before it, does not fit the network.
            NumericalError: The training diverged, or statistics are not finite.

        """
        path = (*plan.path, plan) if isinstance(plan, PathPlan) else (plan,)
        change = self._read(path)
        if change is None:
            change = self._train(path)
        return self._evaluator.recalibrated(self._changed(plan, change))

    def _before(self, path: Sequence[Plan]) -> Change | None:
        """Return what training has changed before the end of `path`; None at its begin."""
        way = path[:-1]
        if not way:
            return None
        key = self._key(way)
        if self._last is None or self._last[0] != key:
            change = self._read(way)
            if change is None:
                change = self._train(way)
            self._forget_siblings(way)
            self._last = (key, change)
        return self._last[1]

    def _train(self, path: Sequence[Plan]) -> Change:
        """Train the end of `path`; return, and keep, what has changed since the reconstruction."""
        plan, before = path[-1], self._before(path)
        inputs, labels, settings = self._lesson(len(path) - 1)
        start = self._evaluator.reconstructed(plan)
        module = start if before is None else self._changed(plan, before)
        teacher = self.problem.network.module
        result = finetune(module, inputs, labels, settings, teacher=teacher, precision=self._precision)
        trained, places = dict(result.module.named_parameters()), self._places(plan)
        change = {}
        for name, parameter in start.named_parameters():
            whole = torch.zeros(self._shapes()[name])
            whole.view(-1)[places[name]] = (trained[name].detach() - parameter.detach().cpu()).flatten()
            change[name] = whole
        self._write(path, change)
        return change

    def _lesson(self, depth: int) -> tuple[Tensor, Tensor | None, FinetuneSettings]:
        """Return images, labels and settings of the training at a depth of the path, counted from 0.

        Every depth takes the images behind those of the one before, over and over again.
        """
        n = len(self._fit)
        batch = min(n, self._settings.batch_size)
        epochs = math.ceil(self._steps / (n // batch))
        images = math.ceil(self._steps / epochs) * batch
        chosen = (torch.arange(images) + depth * images) % n
        labels = None if self._fit.labels is None else self._fit.labels[chosen]
        settings = replace(self._settings, epochs=epochs, seed=self._settings.seed + depth)
        return self._fit.inputs[chosen], labels, settings

    def _changed(self, plan: Plan, change: Change) -> fx.GraphModule:
        """Return the reconstruction of `plan` with what training has `change`d in the weights it keeps."""
        module, places = self._evaluator.reconstructed(plan), self._places(plan)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.add_(change[name].view(-1)[places[name]].view(parameter.shape).to(parameter.device))
        return module

    def _places(self, plan: Plan) -> dict[str, Tensor]:
        """Return where the weights that `plan` keeps stand in the unpruned network's, by parameter, flat."""
        if self._numbers is None:
            self._numbers = numbered(self.problem.network)
        numbers = prune(self._numbers, self.problem.all_groups, plan)
        return {name: parameter.detach().flatten() for name, parameter in numbers.named_parameters()}

    def _shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of the unpruned network's parameters."""
        return {name: parameter.shape for name, parameter in self.problem.network.module.named_parameters()}

    def _key(self, path: Sequence[Plan]) -> str:
        """Return the name of all that the weights at the end of `path` depend on; empty for none."""
        kept = [{name: list(indices) for name, indices in plan.kept.items()} for plan in path]
        return _sha256(json.dumps([self.settings_key, kept], sort_keys=True))

    def _file(self, path: Sequence[Plan]) -> Path:
        """Return where the checkpoint of `path` is kept; those after the same plans begin alike."""
        return self._checkpoints / f"{self._key(path[:-1])[:32]}-{self._key(path)[:32]}.safetensors"

    def _read(self, path: Sequence[Plan]) -> Change | None:
        """Return a checkpoint; None where it is missing or damaged."""
        try:
            change = load(self._file(path).read_bytes())
        except (OSError, SafetensorError):
            return None
        sound = {name: tensor.shape for name, tensor in change.items()} == self._shapes() and all(
            tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all()) for tensor in change.values()
        )
        return change if sound else None

    def _write(self, path: Sequence[Plan], change: Change) -> None:
        """Keep a checkpoint, completely or not at all; where that fails, it is computed again when it is needed."""
        file = self._file(path)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save(dict(change)))
            os.replace(temporary, file)

    def _forget_siblings(self, path: Sequence[Plan]) -> None:
        """Remove the checkpoints of what was proposed beside the end of `path`, which was taken."""
        taken = self._file(path)
        for file in self._checkpoints.glob(f"{taken.name[:32]}-*.safetensors"):
            if file != taken:
                with suppress(OSError):  # another worker does the same
                    file.unlink()


def _sha256(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
