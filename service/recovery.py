"""What happens to a policy's winner: prune, recalibrate, fine-tune."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from autoprune.datasets.splits import Split, Splits
from autoprune.errors import Cancelled
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.metrics import Scores, predict, score
from autoprune.evaluation.recalibration import recalibrate
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.service.inputs import Inputs
from autoprune.service.spec import JobSpec, Progress


@dataclass(frozen=True, slots=True)
class Recovered:
    """The pruned network before and after fine-tuning (None without it), and its scores on the search split."""

    before: fx.GraphModule
    finetuned: fx.GraphModule | None
    search_finetuned: Scores | None

    @property
    def final(self) -> fx.GraphModule:
        """The network that is exported."""
        return self.finetuned or self.before


def recover(
    problem: PruningProblem,
    plan: Plan,
    splits: Splits,
    spec: JobSpec,
    policy: str,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Recovered:
    """Prune by `plan`, recalibrate batch norm, and fine-tune on the fit split with the unpruned network as teacher.

    Raises:
        NumericalError: Training diverged.
        Cancelled: `should_stop` said so.

    """
    before = prune(problem.network, problem.all_groups, plan)
    recalibrate(before, splits.fit.inputs[:RECALIBRATION_IMAGES])
    if spec.finetune_epochs == 0:
        return Recovered(before, None, None)

    def stepped(done: int, total: int, text: str) -> None:
        if should_stop():
            raise Cancelled("the job was cancelled while fine-tuning")
        report(Progress(stage="finetune", done=done, total=total, message=text, policy=policy))

    teacher = problem.network.module
    trained, _ = finetune(
        before,
        splits.fit.inputs,
        splits.fit.labels,
        finetune_settings(spec),
        teacher=teacher,
        progress=stepped,
    )
    search = splits.search
    reference = predict(teacher, search.inputs)
    return Recovered(before, trained, score(trained, search.inputs, search.labels, reference_logits=reference))


def finetune_settings(spec: JobSpec) -> FinetuneSettings:
    """Translate the job's options."""
    return FinetuneSettings(epochs=spec.finetune_epochs, seed=spec.seed, **spec.finetune.model_dump())


def score_on(split: Split, module: fx.GraphModule, inputs: Inputs) -> Scores:
    """Score a network on any split, agreement with the unpruned network included."""
    reference = predict(inputs.problem.network.module, split.inputs)
    return score(module, split.inputs, split.labels, reference_logits=reference)
