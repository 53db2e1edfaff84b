"""What happens to a policy's winner: refit, fine-tune; and how networks are scored on a split."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from autoprune.datasets.splits import Split, Splits
from autoprune.errors import Cancelled, NumericalError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores, predict, score_logits
from autoprune.formats.checkpoint_file import key_of, load_checkpoint, save_checkpoint
from autoprune.formats.onnx_run import run_onnx
from autoprune.reconstruction.refit import refit
from autoprune.recovery.checkpoint import Checkpoint
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.search.searcher import Trial
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress

#: Images of the fit split that a refit looks at where memory allows: deep networks gain from many.
REFIT_IMAGES = 8000

#: Raised whenever a refit of the same would give other weights: those that were kept are then not used.
REFIT_VERSION = 1

#: The file of a refit.
REFIT_FORMAT = "autoprune-refit/1"


def refitted(
    evaluator: Evaluator,
    found: Trial,
    splits: Splits,
    *,
    seed: int,
    policy: str | None,
    checkpoints: Path,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[fx.GraphModule, Scores] | None:
    """Return a search's winner after a refit of all its layers, with its scores on the search split.

    None where the refit did not help, or gave values that are not finite: the search split decides. What was solved is
    kept in the folder `checkpoints`, and not solved again.

    Raises:
        Cancelled: `should_stop` said so.

    """

    def stepped(done: int, total: int) -> None:
        if should_stop():
            raise Cancelled("stopped while layers were refitted; evaluations are kept, the refit starts over next time")
        report(Progress(stage="refit", done=done, total=total, message="layers solved in order", policy=policy))

    problem = evaluator.problem
    plan = problem.plan(found.policy)
    module = evaluator.reconstructed(plan)
    images = splits.fit.inputs[:REFIT_IMAGES]
    facts = {"version": REFIT_VERSION, "evaluator": evaluator.settings_key, "plan": plan.kept, "images": len(images)}
    key = key_of({**facts, "seed": seed})
    file = checkpoints / f"refit-{key[:12]}.safetensors"
    kept = load_checkpoint(file, REFIT_FORMAT, key)
    if kept is not None:
        module.load_state_dict(kept.tensors)
    else:
        refit(problem.network, problem.all_groups, plan, module, images, seed=seed, progress=stepped)
        with suppress(OSError):  # it is solved again where it cannot be kept
            save_checkpoint(file, REFIT_FORMAT, key, {}, module.state_dict())
    try:
        scores = evaluator.score(module)
    except NumericalError:
        return None
    helped = (scores.objective, -scores.regret) > (found.objective, -found.scores.regret)
    return (module, scores) if helped else None


def finetuned(
    module: fx.GraphModule,
    teacher: fx.GraphModule,
    splits: Splits,
    spec: JobSpec,
    *,
    precision: str,
    policy: str | None,
    checkpoint: Checkpoint,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> fx.GraphModule:
    """Return a copy of `module`, trained on the fit split with the unpruned network as `teacher`.

    It goes on from `checkpoint`, where that is of this very training.

    Raises:
        NumericalError: Training diverged.
        Cancelled: `should_stop` said so.

    """

    def stepped(done: int, total: int, text: str) -> None:
        if should_stop():
            raise Cancelled("stopped while fine-tuning; run the same again to go on")
        report(Progress(stage="finetune", done=done, total=total, message=text, policy=policy))

    settings = FinetuneSettings(epochs=spec.finetune_epochs, seed=spec.seed, **spec.finetune.model_dump())
    fit = splits.fit
    return finetune(
        module,
        fit.inputs,
        fit.labels,
        settings,
        teacher=teacher,
        checkpoint=checkpoint,
        progress=stepped,
        precision=precision,
    ).module


class Scorer:
    """Scores networks on one split, agreement with the unpruned one included; a network is run once.

    Paths are those of ONNX files, which are run in onnxruntime.
    """

    def __init__(self, split: Split, unpruned: fx.GraphModule) -> None:
        """Run the `unpruned` network on `split`."""
        self._split = split
        self._reference = predict(unpruned, split.inputs)
        self._known = {unpruned: self._judged(self._reference)}

    def __call__(self, module: fx.GraphModule | Path) -> Scores:
        """Return the scores of a network."""
        return self._judge(module)[0]

    def right(self, module: fx.GraphModule) -> NDArray[np.bool_]:
        """Return which images a network gets right, ``(n,)``; without labels, where it agrees with the unpruned one."""
        return self._judge(module)[1]

    def _judge(self, module: fx.GraphModule | Path) -> tuple[Scores, NDArray[np.bool_]]:
        """Run a network, unless it was run before; files may change, so they are run each time."""
        if isinstance(module, Path):
            return self._judged(torch.from_numpy(run_onnx(module, self._split.inputs.numpy())))
        if module not in self._known:
            self._known[module] = self._judged(predict(module, self._split.inputs))
        return self._known[module]

    def _judged(self, logits: Tensor) -> tuple[Scores, NDArray[np.bool_]]:
        """Score outputs ``(n, classes)``, and tell which are right."""
        labels = self._split.labels
        expected = self._reference.argmax(1) if labels is None else labels.cpu()
        scores = score_logits(logits, labels, reference_logits=self._reference)
        return scores, (logits.argmax(1) == expected).numpy()
