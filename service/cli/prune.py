"""The command ``prune``: weights or channels go on a schedule, with training in between."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.channels import comparable_units
from autoprune.criteria.members import Scores
from autoprune.errors import DatasetError, UnknownNameError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.service.cli.errors import CommandError
from autoprune.service.cli.pruning_task import Pruned, Task, run_task
from autoprune.training.channel_removal import RemovalSettings, remove_while_training
from autoprune.training.gradual_pruning import prune_gradually
from autoprune.training.gradual_schedule import GradualSchedule
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import Masks, Scope, full_masks
from autoprune.training.patterns import Pattern, pattern_masks
from autoprune.training.rounds import check_shares, exponential, kept_count, linear
from autoprune.training.scored_rounds import prune_by_scores
from autoprune.training.weight_scores import ByCriterion

#: Rounds by the name of their schedule.
ROUNDS = {"exponential": exponential, "linear": linear}

SCHEDULES = (*ROUNDS, "gradual")

SCOPES = ("global", "layer")

#: Criterion of each unit where none is asked for: magnitude.
DEFAULT_CRITERIA = {"weights": "l1", "channels": "l2"}

#: Of a gradual training, the share after which nothing goes any more.
GRADUAL_PART = 0.75


def run_prune(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, training that diverges, a layer that would collapse, or an interruption.

    """
    _check(params)
    unit = str(params["unit"])
    make = _channels if unit == "channels" else _weights
    run_task(params, unit, lambda task: make(task, params), resumes=make is _weights and _maker(params) is _in_rounds)


def _check(params: Mapping[str, object]) -> None:
    """Refuse options that contradict each other before anything is loaded.

    Raises:
        AutopruneError: A name that is not known, a share out of range, or options of the other unit.

    """
    pattern = pattern_of(params)
    for name, known in (("unit", ("weights", "channels")), ("schedule", SCHEDULES), ("scope", (*SCOPES, "N:M"))):
        if params[name] not in known and not (name == "scope" and pattern is not None):
            raise UnknownNameError(name, str(params[name]), known)
    check_shares((float(str(params["kept"])),))
    find_criterion(_criterion(params), "weight" if params["unit"] == "weights" else "channel")
    if params["unit"] == "weights" and (params["tolerance"] is not None or params["include_residual"]):
        raise CommandError("--tolerance and --include-residual belong to --unit channels")
    if params["unit"] == "channels" and (params["schedule"] != "exponential" or params["scope"] != "global"):
        raise CommandError(
            "--schedule and --scope belong to --unit weights; channels go in even steps, over all layers"
        )
    if pattern is not None:
        _check_pattern(params, pattern)
    if not params["finetune_epochs"] and (params["unit"] == "channels" or params["schedule"] == "gradual"):
        raise CommandError("--epochs 0 belongs to rounds of --unit weights, which can be scored without training")


def _check_pattern(params: Mapping[str, object], pattern: Pattern) -> None:
    """Refuse options that do not go with a pattern.

    Raises:
        CommandError: Another share, several rounds, or a gradual training.

    """
    share = pattern.kept / pattern.block
    if params["rounds"] != 1 or not math.isclose(float(str(params["kept"])), share, abs_tol=1e-4):
        raise CommandError(f"--scope {pattern} keeps {share:g} at once: --kept so much, --rounds 1")
    if params["schedule"] == "gradual":
        raise CommandError(f"--scope {pattern} goes at once, without --schedule gradual")


def _criterion(params: Mapping[str, object]) -> str:
    """Return the criterion asked for, or the usual one of the unit."""
    return str(params["criterion"] or DEFAULT_CRITERIA[str(params["unit"])])


def _details(params: Mapping[str, object]) -> dict[str, object]:
    """Return what was asked for, JSON-ready."""
    return {**{name: params[name] for name in ("schedule", "rounds", "scope")}, "criterion": _criterion(params)}


def scope_of(params: Mapping[str, object]) -> Scope:
    """Return who competes with whom."""
    return "global" if params["scope"] == "global" else "layer"


def pattern_of(params: Mapping[str, object]) -> Pattern | None:
    """Return the pattern that is asked for as a scope, if one is."""
    text = str(params["scope"])
    return Pattern.parse(text) if ":" in text else None


def _weights(task: Task, params: Mapping[str, object]) -> Pruned:
    """Prune single weights, in rounds or gradually; train for the final epochs."""
    network, masks = _maker(params)(task, params, ByCriterion(_criterion(params), task.data))
    module = task.trained(network.module, task.final_epochs, masks)
    return Pruned(module, {name: int(mask.sum()) for name, mask in masks.items()}, details=_details(params))


def _maker(params: Mapping[str, object]) -> Callable[[Task, Mapping[str, object], ByCriterion], tuple[Network, Masks]]:
    """Return what prunes single weights as it is asked for."""
    if params["schedule"] == "gradual":
        return _gradually
    if pattern_of(params) is not None:
        return _by_pattern
    return _in_rounds if params["finetune_epochs"] else _untrained


def _gradually(task: Task, params: Mapping[str, object], score: ByCriterion) -> tuple[Network, Masks]:
    """Prune in the course of one training."""
    fit, rounds = task.splits.fit, int(str(params["rounds"]))
    training = replace(task.training, epochs=task.training.epochs * rounds)
    steps = training.epochs * training.steps_per_epoch(len(fit))
    interval = max(1, int(GRADUAL_PART * steps) // rounds)
    found = prune_gradually(
        task.network, fit.inputs, fit.labels, training, GradualSchedule(1 - task.kept, 0, interval, rounds),
        scope=scope_of(params), score=score, teacher=task.teacher, progress=task.tell, precision=task.precision,
    )  # fmt: skip
    return found.network, found.masks


def _in_rounds(task: Task, params: Mapping[str, object], score: ByCriterion) -> tuple[Network, Masks]:
    """Prune in rounds with training after each."""
    fit, shares = task.splits.fit, ROUNDS[str(params["schedule"])](task.kept, int(str(params["rounds"])))
    found = prune_in_rounds(
        task.network, fit.inputs, fit.labels, IterativeSettings(task.training, shares, None, scope_of(params)),
        score=score, teacher=task.teacher, folder=task.folder / "rounds", progress=task.tell, precision=task.precision,
    )  # fmt: skip
    return found.trained, found.masks


def _by_pattern(task: Task, params: Mapping[str, object], score: ByCriterion) -> tuple[Network, Masks]:
    """Prune to N of every M weights at once, with training after it."""
    pattern, network = pattern_of(params), task.network
    assert pattern is not None, "asked for"
    masks = pattern_masks(network, full_masks(network), score(network), pattern)
    module = task.trained(masked(network, masks).module, task.training.epochs, masks)
    return Network(module, network.input_shape, network.shapes), masks


def _untrained(task: Task, params: Mapping[str, object], score: ByCriterion) -> tuple[Network, Masks]:
    """Prune in rounds of scores alone."""
    shares = ROUNDS[str(params["schedule"])](task.kept, int(str(params["rounds"])))
    masks = prune_by_scores(task.network, shares, score, scope=scope_of(params), progress=task.tell)
    return masked(task.network, masks), masks


def _channels(task: Task, params: Mapping[str, object]) -> Pruned:
    """Remove channels in even steps; train for the final epochs."""
    fit, judge = task.splits.fit, task.splits.search
    if fit.labels is None or judge.labels is None:
        raise DatasetError("removing channels in turn with training needs labels, found none; use --unit weights")
    include_residual, criterion = bool(params["include_residual"]), _criterion(params)
    groups = find_groups(task.network).prunable(include_residual=include_residual)
    total = sum(len(group) for group in groups)
    most = total - kept_count(total, task.kept)
    if most < 1:
        raise CommandError(f"--kept {task.kept}: of {total} channels that can be pruned none would go; keep fewer")

    def score(network: Network, groups: ChannelGroups) -> Scores:
        chosen = groups.prunable(include_residual=include_residual)
        whole = sum(len(group) for group in chosen) == total  # later, nothing may pass through a group: it goes first
        return comparable_units(network, groups, criterion, task.data, chosen=chosen, checked=whole)

    found = remove_while_training(
        task.network, (fit.inputs, fit.labels), (judge.inputs, judge.labels), _removals(task, params, most),
        score=score, teacher=task.teacher, progress=task.tell, precision=task.precision,
    )  # fmt: skip
    kept = {name: len(indices) for name, indices in found.plan.kept.items()}
    module = task.trained(found.network.module, task.final_epochs)
    said = f"stopped by --tolerance: {total - sum(kept.values())} of {most} channels went, more would cost too much"
    course = {"history": [asdict(each) for each in found.history], "stopped_by_tolerance": found.stopped}
    return Pruned(
        module,
        kept,
        replace(found.plan, model_sha256=task.sha256),
        details={**_details(params), **course},
        notes=(said,) * found.stopped,
    )


def _removals(task: Task, params: Mapping[str, object], most: int) -> RemovalSettings:
    """Return how `most` channels are removed."""
    return RemovalSettings(
        training=task.training,
        minibatches=task.training.epochs * task.training.steps_per_epoch(len(task.splits.fit)),
        tolerance=math.inf if params["tolerance"] is None else float(str(params["tolerance"])),
        most=most,
        removals=int(str(params["rounds"])),
        include_residual=bool(params["include_residual"]),
    )
