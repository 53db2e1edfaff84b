"""The PruningNet of a job: trained, audited, and then what policy metapruning scores its candidates with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from autoprune.errors import Cancelled
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import Scores
from autoprune.pruningnet.predicted_evaluator import PredictedEvaluator
from autoprune.pruningnet.training import train_pruningnet
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.answers import Answers
from autoprune.search.driver import SearchResult
from autoprune.search.journal import Journal
from autoprune.search.pool import EvaluationPool
from autoprune.search.proxied import judged
from autoprune.search.proxy_audit import ProxyAudit, audit_proxy
from autoprune.service.pipeline.inputs import Inputs
from autoprune.service.pipeline.searchers import Found, pruningnet_settings
from autoprune.service.results.job_result import AuditView, PruningNetView, ScoresView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.pruningnet_options import METAPRUNING


@dataclass(frozen=True, slots=True)
class Proxy:
    """What policy metapruning searches with.

    Attributes:
        evaluator: Scores with predicted weights.
        losses: Mean loss of every epoch of its training.
        images: Images it was trained on.
        audit: How it ranks; None where nobody asked.
        seconds: Wall time of the training, or of its last part where it was stopped before.

    """

    evaluator: PredictedEvaluator
    losses: tuple[float, ...]
    images: int
    audit: ProxyAudit | None
    seconds: float

    def found(self, result: SearchResult, answers: Answers) -> Found:
        """Return what a search with it found, the winner scored by `answers` as the winners of all other policies are.

        Raises:
            AutopruneError: Whatever evaluator, pool or journal raise.

        """
        timed = replace(result, seconds=result.seconds + self.seconds)
        return Found(judged(timed, answers), pruningnet=self._view(result.best.scores))

    def _view(self, predicted: Scores) -> PruningNetView:
        """Return what the result says about it; `predicted` are the scores of the winner with predicted weights."""
        audit = None
        if self.audit is not None:
            audit = AuditView(
                plans=self.audit.plans,
                kendall_tau=self.audit.kendall_tau,
                p_value=self.audit.p_value,
                failure=self.audit.failure,
            )
        return PruningNetView(
            images=self.images, losses=list(self.losses), predicted=ScoresView(**predicted.to_dict()), audit=audit
        )


def trained_proxy(
    spec: JobSpec,
    inputs: Inputs,
    evaluator: Evaluator,
    *,
    checkpoints: Path,
    journal: Journal,
    pool: EvaluationPool,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Proxy:
    """Train a job's PruningNet, or go on with it, and audit it if the job says so.

    Args:
        spec: The job.
        inputs: What it computes with.
        evaluator: Recalibrates and scores.
        checkpoints: Folder for what is trained.
        journal: Remembers the audit's scores.
        pool: Where the audit is computed.
        report: Told how far it is.
        should_stop: Asked after every step.

    Raises:
        SearchError: Too large for the memory of this machine.
        NumericalError: The training diverged.
        Cancelled: `should_stop` said so.

    """

    def stepped(done: int, total: int, text: str) -> None:
        report(Progress(stage="pruningnet", done=done, total=total, message=text, policy=METAPRUNING))
        if should_stop():
            raise Cancelled("stopped while the PruningNet was trained; run the same job again to go on")

    started, images = time.monotonic(), min(spec.pruningnet.images or len(inputs.splits.fit), len(inputs.splits.fit))
    net, losses = train_pruningnet(
        inputs.problem,
        inputs.splits.fit,
        pruningnet_settings(spec),
        images=images,
        precision=inputs.precision,
        checkpoint=checkpoints / METAPRUNING / "pruningnet.safetensors",
        progress=stepped,
    )
    seconds, proxy = time.monotonic() - started, PredictedEvaluator(evaluator, net)

    def audited(done: int, total: int) -> None:
        message = "random plans fine-tuned"
        report(Progress(stage="audit", done=done, total=total, message=message, policy=METAPRUNING))

    audit = None
    if spec.pruningnet.audit_plans:
        audit = audit_proxy(
            inputs.problem,
            proxy,
            _truth(spec, inputs, evaluator, checkpoints / "audit"),
            plans=spec.pruningnet.audit_plans,
            seed=spec.seed,
            journal=journal,
            pool=pool,
            progress=audited,
            should_stop=should_stop,
        )
    return Proxy(proxy, losses, images, audit, seconds)


def _truth(spec: JobSpec, inputs: Inputs, evaluator: Evaluator, checkpoints: Path) -> TunedEvaluator:
    """Return what scores plans as they are delivered, but for the refit: fine-tuned, for an epoch if not for more."""
    settings = FinetuneSettings(epochs=max(1, spec.finetune_epochs), seed=spec.seed, **spec.finetune.model_dump())
    images = len(inputs.splits.fit)
    steps = settings.epochs * (images // min(images, settings.batch_size))
    splits = inputs.splits.for_search()
    return TunedEvaluator(
        evaluator, splits, steps=steps, checkpoints=checkpoints, settings=settings, precision=inputs.precision
    )
