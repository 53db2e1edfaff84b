"""What happens to a policy's winner: prune, recalibrate, fine-tune; and how networks are scored on a split."""

from collections.abc import Callable

from torch import fx

from autoprune.datasets.splits import Split, Splits
from autoprune.errors import Cancelled
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.metrics import Scores, predict, score_logits
from autoprune.evaluation.recalibration import recalibrate
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.service.spec import JobSpec, Progress


def pruned(problem: PruningProblem, plan: Plan, splits: Splits) -> fx.GraphModule:
    """Return the network that `plan` leaves, with batch norm recalibrated as in every evaluation."""
    module = prune(problem.network, problem.all_groups, plan)
    recalibrate(module, splits.fit.inputs[:RECALIBRATION_IMAGES])
    return module


def finetuned(
    module: fx.GraphModule,
    teacher: fx.GraphModule,
    splits: Splits,
    spec: JobSpec,
    *,
    policy: str | None,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> fx.GraphModule:
    """Return a copy of `module`, trained on the fit split with the unpruned network as `teacher`.

    Raises:
        NumericalError: Training diverged.
        Cancelled: `should_stop` said so.

    """

    def stepped(done: int, total: int, text: str) -> None:
        if should_stop():
            raise Cancelled("stopped while fine-tuning; evaluations are kept, training starts over next time")
        report(Progress(stage="finetune", done=done, total=total, message=text, policy=policy))

    settings = FinetuneSettings(epochs=spec.finetune_epochs, seed=spec.seed, **spec.finetune.model_dump())
    return finetune(module, splits.fit.inputs, splits.fit.labels, settings, teacher=teacher, progress=stepped).module


def scorer(split: Split, unpruned: fx.GraphModule) -> Callable[[fx.GraphModule], Scores]:
    """Return a function that scores networks on `split`, agreement with the unpruned one included."""
    reference = predict(unpruned, split.inputs)

    def score(module: fx.GraphModule) -> Scores:
        logits = reference if module is unpruned else predict(module, split.inputs)
        return score_logits(logits, split.labels, reference_logits=reference)

    return score
