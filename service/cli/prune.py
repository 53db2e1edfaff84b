"""The command ``prune``: weights or channels go on a schedule, with training in between."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import typer
from torch import fx

from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.channels import comparable, score_units
from autoprune.criteria.data import CriterionData, criterion_data
from autoprune.criteria.members import Scores
from autoprune.datasets.splits import Split, Splits
from autoprune.errors import Cancelled, DatasetError, UnknownNameError
from autoprune.evaluation.precision import choose_precision
from autoprune.formats.weights import save_weights
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.batchnorm import measure_batchnorm
from autoprune.network.memory import keep_freed_memory
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.service.cli.console import stderr, stdout, stop_on_interrupt
from autoprune.service.cli.export import Exported, export_checked, show_exported
from autoprune.service.cli.finetune import make_folder, show_scores
from autoprune.service.cli.inspect import load_model
from autoprune.service.cli.options import CommandError, spec_values
from autoprune.service.pipeline.inputs import BATCHNORM_IMAGES, load_splits
from autoprune.service.pipeline.job import PARITY_IMAGES
from autoprune.service.pipeline.outcome import view
from autoprune.service.pipeline.recovery import Scorer
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results.job_result import ScoresView
from autoprune.service.specs.job_spec import Progress, read_spec
from autoprune.training.channel_removal import RemovalSettings, remove_while_training
from autoprune.training.gradual_pruning import prune_gradually
from autoprune.training.gradual_schedule import GradualSchedule
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import Scope
from autoprune.training.rounds import check_shares, exponential, kept_count, linear
from autoprune.training.weight_scores import ByCriterion

#: Rounds by the name of their schedule.
ROUNDS = {"exponential": exponential, "linear": linear}

SCHEDULES = (*ROUNDS, "gradual")

#: Criterion of each unit where none is asked for: magnitude.
DEFAULT_CRITERIA = {"weights": "l1", "channels": "l2"}

#: Of a gradual training, the share after which nothing goes any more.
GRADUAL_PART = 0.75

#: Settings of a job that are needed and not looked at where nothing is searched.
_NO_SEARCH = {"budget": "macs=100%", "policies": ["uniform"], "criterion": "l1", "reconstruction": False}
_OWN = {
    "kept",
    "unit",
    "criterion",
    "schedule",
    "rounds",
    "scope",
    "tolerance",
    "include_residual",
    "output",
    "as_json",
}


@dataclass(frozen=True, slots=True)
class _Task:
    """What is asked for."""

    network: Network
    sha256: str
    splits: Splits
    training: FinetuneSettings
    kept: float
    criterion: str
    data: CriterionData
    schedule: str
    rounds: int
    scope: Scope
    tolerance: float
    include_residual: bool
    folder: Path
    precision: str
    tell: Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class _Pruned:
    """What is left: a network, what of it stays by layer or group, and a plan where channels went."""

    module: fx.GraphModule
    kept: dict[str, int]
    plan: Plan | None


def run_prune(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, training that diverges, a layer that would collapse, or an interruption.

    """
    _check(params)
    values = spec_values({name: value for name, value in params.items() if name not in _OWN})
    network = load_model(values)
    spec = read_spec({**values, **_NO_SEARCH})
    folder = Path(str(params["output"]))
    make_folder(folder)
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    console = stderr()
    with stop_on_interrupt(console) as should_stop, ProgressBars(console) as bars:

        def tell(done: int, total: int, text: str) -> None:
            if should_stop():
                raise Cancelled("stopped; rounds of weights that are done are kept")
            bars(Progress(stage="finetune", done=done, total=total, message=text, policy=None))

        _, _, splits = load_splits(spec, network, bars)
        task = _Task(
            network=measure_batchnorm(network, splits.fit.inputs[:BATCHNORM_IMAGES]),
            sha256=network.fingerprint(),
            splits=splits,
            training=FinetuneSettings(epochs=spec.finetune_epochs, seed=spec.seed, **spec.finetune.model_dump()),
            kept=float(str(params["kept"])),
            criterion=_criterion(params),
            data=criterion_data(splits.fit, seed=spec.seed),
            schedule=str(params["schedule"]),
            rounds=int(str(params["rounds"])),
            scope="global" if params["scope"] == "global" else "layer",
            tolerance=math.inf if params["tolerance"] is None else float(str(params["tolerance"])),
            include_residual=bool(params["include_residual"]),
            folder=folder,
            precision=choose_precision("auto"),
            tell=tell,
        )
        pruned = _channels(task) if params["unit"] == "channels" else _weights(task)
    images = splits.search.inputs[:PARITY_IMAGES]
    exported = export_checked(pruned.module, network, folder / "model.onnx", images, opset=spec.opset)
    save_weights(pruned.module, folder / "weights.safetensors")
    if pruned.plan is not None:
        pruned.plan.save(folder / "plan.json")
    scores = {split.name: _scores(task, pruned, split) for split in (splits.search, splits.report)}
    text = json.dumps(_to_dict(params, pruned, scores, exported), indent=1)
    (folder / "prune.json").write_text(text, encoding="utf-8")
    if params["as_json"]:
        typer.echo(text)
        return
    show_scores(stdout(), scores["search"], scores["report"])
    stdout().print(f"{sum(pruned.kept.values()):,} {params['unit']} kept")
    show_exported(stdout(), exported)


def _check(params: Mapping[str, object]) -> None:
    """Refuse options that contradict each other before anything is loaded.

    Raises:
        AutopruneError: A name that is not known, a share out of range, or options of the other unit.

    """
    for name, known in (("unit", ("weights", "channels")), ("schedule", SCHEDULES), ("scope", ("global", "layer"))):
        if params[name] not in known:
            raise UnknownNameError(name, str(params[name]), known)
    check_shares((float(str(params["kept"])),))
    find_criterion(_criterion(params), "weight" if params["unit"] == "weights" else "channel")
    if params["unit"] == "weights" and (params["tolerance"] is not None or params["include_residual"]):
        raise CommandError("--tolerance and --include-residual belong to --unit channels")
    if params["unit"] == "channels" and (params["schedule"] != "exponential" or params["scope"] != "global"):
        raise CommandError(
            "--schedule and --scope belong to --unit weights; channels go in even steps, over all layers"
        )


def _criterion(params: Mapping[str, object]) -> str:
    """Return the criterion asked for, or the usual one of the unit."""
    return str(params["criterion"] or DEFAULT_CRITERIA[str(params["unit"])])


def _weights(task: _Task) -> _Pruned:
    """Prune single weights, in rounds or gradually."""
    fit, score = task.splits.fit, ByCriterion(task.criterion, task.data)
    if task.schedule == "gradual":
        training = replace(task.training, epochs=task.training.epochs * task.rounds)
        steps = training.epochs * training.steps_per_epoch(len(fit))
        interval = max(1, int(GRADUAL_PART * steps) // task.rounds)
        gradual = GradualSchedule(1 - task.kept, 0, interval, task.rounds)
        found = prune_gradually(
            task.network, fit.inputs, fit.labels, training, gradual, scope=task.scope, score=score,
            teacher=task.network, progress=task.tell, precision=task.precision,
        )  # fmt: skip
        network, masks = found.network, found.masks
    else:
        settings = IterativeSettings(task.training, ROUNDS[task.schedule](task.kept, task.rounds), None, task.scope)
        ticket = prune_in_rounds(
            task.network, fit.inputs, fit.labels, settings, score=score, teacher=task.network,
            folder=task.folder / "rounds", progress=task.tell, precision=task.precision,
        )  # fmt: skip
        network, masks = ticket.trained, ticket.masks
    return _Pruned(network.module, {name: int(mask.sum()) for name, mask in masks.items()}, None)


def _channels(task: _Task) -> _Pruned:
    """Remove channels in even steps."""
    fit, judge = task.splits.fit, task.splits.search
    if fit.labels is None or judge.labels is None:
        raise DatasetError("removing channels in turn with training needs labels, found none; use --unit weights")
    groups = find_groups(task.network).prunable(include_residual=task.include_residual)
    total = sum(len(group) for group in groups)
    most = total - kept_count(total, task.kept)
    if most < 1:
        raise CommandError(f"--kept {task.kept}: of {total} channels that can be pruned none would go; keep fewer")
    settings = RemovalSettings(
        training=task.training,
        channels=math.ceil(most / task.rounds),
        minibatches=task.training.epochs * task.training.steps_per_epoch(len(fit)),
        tolerance=task.tolerance,
        most=most,
        include_residual=task.include_residual,
    )

    def score(network: Network, groups: ChannelGroups) -> Scores:
        scores = score_units(network, groups, task.criterion, task.data)
        for group in groups.prunable(include_residual=task.include_residual):
            units = list(group.units)
            scores[units] = comparable(task.criterion, scores[units])
        return scores

    found = remove_while_training(
        task.network, (fit.inputs, fit.labels), (judge.inputs, judge.labels), settings, score=score,
        teacher=task.network, progress=task.tell, precision=task.precision,
    )  # fmt: skip
    kept = {name: len(indices) for name, indices in found.plan.kept.items()}
    return _Pruned(found.network.module, kept, replace(found.plan, model_sha256=task.sha256))


def _scores(task: _Task, pruned: _Pruned, split: Split) -> dict[str, ScoresView]:
    """Score the unpruned and the pruned network on a split."""
    score = Scorer(split, task.network.module)
    return {"unpruned": view(score(task.network.module)), "pruned": view(score(pruned.module))}


def _to_dict(
    params: Mapping[str, object], pruned: _Pruned, scores: Mapping[str, dict[str, ScoresView]], exported: Exported
) -> dict[str, object]:
    """Return JSON-ready data."""
    return {
        "format": "autoprune-prune/1",
        **{name: params[name] for name in ("unit", "schedule", "rounds", "scope")},
        "criterion": _criterion(params),
        "kept": pruned.kept,
        **{split: {name: each.model_dump() for name, each in views.items()} for split, views in scores.items()},
        "exported": asdict(exported),
    }
