"""The command ``slim``: training with a penalty on what scales channels, and one cut over all layers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import DatasetError, ModelError, SearchError
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.recalibration import recalibrate
from autoprune.groups.channel_group import find_groups
from autoprune.network.batchnorm import is_restored
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import verify
from autoprune.recovery.finetune import finetune
from autoprune.service.cli.pruning_task import SCRATCH, Pruned, Task, run_task
from autoprune.training.penalties import GammaL1
from autoprune.training.rounds import check_shares
from autoprune.training.slimming import gamma_scores, slim_plan, usual_strength
from autoprune.training.soft_masks import train_soft_masks

#: A scale below this is as good as zero.
SMALL = 0.01


@dataclass(frozen=True, slots=True)
class _Slim:
    """A trained network, and what it is cut by.

    Attributes:
        network: Whole.
        plan: Of the channels that stay.
        scales: Sizes of the scales of all channels that can go, by group.

    """

    network: Network
    plan: Plan
    scales: Mapping[str, NDArray[np.float64]]


def run_slim(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, a network without batch norms, training that diverges, or an interruption.

    """
    check_shares((float(str(params["kept"])),))
    run_task({**SCRATCH, **params}, "channels", lambda task: _slimmed(task, params))


def _slimmed(task: Task, params: Mapping[str, object]) -> Pruned:
    """Train with the penalty, cut, measure batch norms again; train for the final epochs."""
    fit = task.splits.fit
    if fit.labels is None:
        raise DatasetError("slimming trains the network on labels, found none")
    given = params["strength"]
    strength = usual_strength(task.training, len(fit)) if given is None else float(str(given))
    slim = (_by_soft_masks if params["soft_masks"] else _by_gammas)(task, params, strength, fit.labels)
    off = [name for name, scales in slim.scales.items() if scales.max() < SMALL]
    if off:
        raise SearchError(
            f"the penalty of strength {strength:.3g} has switched off all channels of {', '.join(map(repr, off))}; "
            "train for more --epochs, or give a smaller --strength"
        )
    groups = find_groups(slim.network)
    verify(slim.network, groups, slim.plan, fit.inputs[:2])
    cut = prune(slim.network, groups, slim.plan)
    recalibrate(cut, fit.inputs[:RECALIBRATION_IMAGES])
    return Pruned(
        task.trained(cut, task.final_epochs),
        {name: len(indices) for name, indices in slim.plan.kept.items()},
        replace(slim.plan, model_sha256=task.sha256),
        whole=slim.network.module,
        details={
            "strength": strength,
            "small_scales": float(np.mean(np.concatenate(list(slim.scales.values())) < SMALL)),
        },
    )


def _by_gammas(task: Task, params: Mapping[str, object], strength: float, labels: Tensor) -> _Slim:
    """Train with L1 on the scales of batch norms: Network Slimming."""
    include_residual, network = bool(params["include_residual"]), task.network
    if not params["from_scratch"] and any(is_restored(name) for name in network.layers()):
        raise ModelError(
            "the model file holds its batch norms folded into the layers before them, so that their scales do not "
            "compare; give --soft-masks, --from-scratch, or an architecture and its weights"
        )
    slim_plan(network, find_groups(network), 1 - task.kept, include_residual=include_residual)  # refuse it early
    module = finetune(
        network.module, task.splits.fit.inputs, labels, task.training,
        penalty=GammaL1(strength, shifts=bool(params["shifts"])), progress=task.tell, precision=task.precision,
    ).module  # fmt: skip
    whole = Network(module, network.input_shape, network.shapes)
    groups = find_groups(whole)
    plan = slim_plan(whole, groups, 1 - task.kept, include_residual=include_residual)
    scores = gamma_scores(whole, groups)
    return _Slim(whole, plan, {g.name: scores[list(g.units)] for g in groups.groups if g.name in plan.kept})


def _by_soft_masks(task: Task, params: Mapping[str, object], strength: float, labels: Tensor) -> _Slim:
    """Train with L1 on factors of channels."""
    found = train_soft_masks(
        task.network, task.splits.fit.inputs, labels, task.training, strength,
        include_residual=bool(params["include_residual"]), progress=task.tell, precision=task.precision,
    )  # fmt: skip
    scales = {name: np.abs(factors) for name, factors in found.factors.items()}
    return _Slim(found.network, found.plan(1 - task.kept), scales)
