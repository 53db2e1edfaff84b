"""What commands that prune while they train have in common: what they are given, and what they write."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import typer
from torch import fx

from autoprune.criteria.data import CriterionData, criterion_data
from autoprune.datasets.splits import Split, Splits
from autoprune.errors import Cancelled, DatasetError
from autoprune.evaluation.precision import choose_precision
from autoprune.formats.weights import save_weights
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.initial_weights import reinitialised
from autoprune.network.memory import keep_freed_memory
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.service.cli.console import stderr, stdout, stop_on_interrupt
from autoprune.service.cli.export import Exported, export_checked, show_exported
from autoprune.service.cli.finetune import show_scores
from autoprune.service.cli.inspect import load_model
from autoprune.service.cli.output_folder import FINETUNED, PRUNED, alone_in, forget_results
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.pipeline.finalist import FILES
from autoprune.service.pipeline.inputs import BATCHNORM_IMAGES, load_splits
from autoprune.service.pipeline.job import PARITY_IMAGES
from autoprune.service.pipeline.outcome import view
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results.job_result import ScoresView
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress
from autoprune.training.masks import MaskKeeper, Masks

#: How a network is trained that is not trained yet: no teacher, and batch norms learn.
SCRATCH: Mapping[str, object] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "distillation": 0.0,
    "hints": 0.0,
    "freeze_batchnorm": False,
}

#: Settings of a job that are needed and not looked at where nothing is searched.
_NO_SEARCH = {"budget": "macs=100%", "policies": ["uniform"], "criterion": "l1", "reconstruction": False}

#: Options that are no settings of a job.
_OWN = {
    "kept", "unit", "criterion", "schedule", "rounds", "scope", "tolerance", "include_residual", "from_scratch",
    "final_epochs", "strength", "shifts", "soft_masks", "rewind_steps", "control", "output", "as_json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for.

    Attributes:
        network: As it was given, restored batch norms measured; or, from scratch, with other weights.
        given: As it was given, restored batch norms measured.
        sha256: Fingerprint of the network as it was given.
        splits: Images.
        training: Of each round.
        data: Images for criteria.
        kept: Share of the weights or channels that stays.
        final_epochs: Of the training after the last of them went.
        folder: For results.
        precision: Of training.
        tell: Shows progress, and stops where the user wants to.

    """

    network: Network
    given: Network
    sha256: str
    splits: Splits
    training: FinetuneSettings
    data: CriterionData
    kept: float
    final_epochs: int
    folder: Path
    precision: str
    tell: Callable[[int, int, str], None]

    @property
    def teacher(self) -> Network | None:
        """The network as it was given, where training learns from it."""
        settings = self.training
        return self.given if settings.distillation > 0 or settings.hints > 0 or self.unlabelled else None

    @property
    def unlabelled(self) -> bool:
        """Whether the images have no classes."""
        return self.splits.fit.labels is None

    def trained(self, module: fx.GraphModule, epochs: int, masks: Masks | None = None) -> fx.GraphModule:
        """Return a network trained once more, its weights that are gone kept at zero."""
        fit, teacher = self.splits.fit, self.teacher
        settings = replace(self.training, epochs=epochs, seed=self.training.seed + _LAST)
        return finetune(
            module, fit.inputs, fit.labels, settings, teacher=None if teacher is None else teacher.module,
            after_step=None if masks is None else MaskKeeper(masks), progress=self.tell, precision=self.precision,
        ).module  # fmt: skip


#: Far from the seeds of all rounds.
_LAST = 10_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is left.

    Attributes:
        module: The network.
        kept: What of it stays, by layer or group.
        plan: Of the channels that stay; None where weights went.
        whole: The network that it is compared with; None for the one given, also where the weights are others.
        others: More to compare with, by name.
        details: What else the command found, JSON-ready.
        notes: What a user should know of the result.

    """

    module: fx.GraphModule
    kept: Mapping[str, int]
    plan: Plan | None = None
    whole: fx.GraphModule | None = None
    others: Mapping[str, fx.GraphModule] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_task(params: Mapping[str, object], unit: str, work: Callable[[Task], Pruned], *, resumes: bool = False) -> None:
    """Load what a command names, have it pruned, export and score what is left, and show it.

    Args:
        params: Of the command.
        unit: What is counted, ``"weights"`` or ``"channels"``.
        work: The command's own part.
        resumes: Whether it keeps what is done, and goes on behind it.

    Raises:
        AutopruneError: Bad input, training that diverges, a layer that would collapse, or an interruption.

    """
    values = spec_values({name: value for name, value in params.items() if name not in _OWN})
    network = load_model(values)
    spec = read_spec({**values, **_NO_SEARCH})
    folder = Path(str(params["output"]))
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    console = stderr()
    with stop_on_interrupt(console) as should_stop, alone_in(folder):
        with ProgressBars(console) as bars:

            def tell(done: int, total: int, text: str) -> None:
                if should_stop():
                    raise Cancelled(f"stopped; {'rounds that are done are kept' if resumes else 'nothing is kept'}")
                bars(Progress(stage="finetune", done=done, total=total, message=text, policy=None))

            task = _task(params, spec, network, bars, tell)
            pruned = work(task)
        scores, exported = _written(task, pruned, opset=spec.opset)
        text = json.dumps(_to_dict(unit, pruned, scores, exported), indent=1)
        (folder / PRUNED).write_text(text, encoding="utf-8")
    if params["as_json"]:
        typer.echo(text)
        return
    show_scores(stdout(), scores["search"], scores["report"])
    stdout().print("\n".join((f"{sum(pruned.kept.values()):,} {unit} kept", *pruned.notes)))
    show_exported(stdout(), exported)


def _task(
    params: Mapping[str, object],
    spec: JobSpec,
    network: Network,
    bars: ProgressBars,
    tell: Callable[[int, int, str], None],
) -> Task:
    """Load the images, and say what is asked for."""
    _, _, splits = load_splits(spec, network, bars)
    fresh, given = bool(params["from_scratch"]), measure_batchnorm(network, splits.fit.inputs[:BATCHNORM_IMAGES])
    if fresh and splits.fit.labels is None:
        raise DatasetError("--from-scratch trains other weights, for which it needs labels, found none; leave it out")
    return Task(
        network=reinitialised(network, spec.seed) if fresh else given,
        given=given,
        sha256=network.fingerprint(),
        splits=splits,
        training=FinetuneSettings(epochs=spec.finetune_epochs, seed=spec.seed, **spec.finetune.model_dump()),
        data=criterion_data(splits.fit, seed=spec.seed),
        kept=float(str(params["kept"])),
        final_epochs=int(str(params["final_epochs"])),
        folder=Path(str(params["output"])),
        precision=choose_precision("auto"),
        tell=tell,
    )


def _written(task: Task, pruned: Pruned, *, opset: int) -> tuple[dict[str, dict[str, ScoresView]], Exported]:
    """Write what is left to the folder; return its scores on both splits, and what was exported."""
    folder, images = task.folder, task.splits.search.inputs[:PARITY_IMAGES]
    forget_results(folder, FILES["plan"], PRUNED, FINETUNED)
    exported = export_checked(pruned.module, task.given, folder / FILES["onnx"], images, opset=opset)
    save_weights(pruned.module, folder / FILES["weights"])
    if pruned.plan is not None:
        pruned.plan.save(folder / FILES["plan"])
    return {split.name: _scores(task, pruned, split) for split in (task.splits.search, task.splits.report)}, exported


def _scores(task: Task, pruned: Pruned, split: Split) -> dict[str, ScoresView]:
    """Score the unpruned and the pruned network on a split, and what else there is to compare with."""
    whole = pruned.whole or task.given.module
    score = Scorer(split, whole)
    return {
        name: view(score(each)) for name, each in {"unpruned": whole, "pruned": pruned.module, **pruned.others}.items()
    }


def _to_dict(
    unit: str, pruned: Pruned, scores: Mapping[str, dict[str, ScoresView]], exported: Exported
) -> dict[str, object]:
    """Return JSON-ready data."""
    return {
        "format": "autoprune-prune/1",
        "unit": unit,
        **pruned.details,
        "kept": pruned.kept,
        **{split: {name: each.model_dump() for name, each in views.items()} for split, views in scores.items()},
        "exported": asdict(exported),
    }
