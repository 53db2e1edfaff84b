"""The command ``slim``: Network Slimming, training with a penalty on batch norms and one cut by their scales."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autoprune.errors import DatasetError, ModelError, SearchError
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.recalibration import recalibrate
from autoprune.groups.channel_group import find_groups
from autoprune.network.batchnorm import is_restored
from autoprune.network.network import Network
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import verify
from autoprune.recovery.finetune import finetune
from autoprune.service.cli.pruning_task import SCRATCH, Pruned, Task, run_task
from autoprune.training.penalties import GammaL1
from autoprune.training.rounds import check_shares
from autoprune.training.slimming import gamma_scores, slim_plan, usual_strength

#: A gamma below this is as good as zero.
SMALL = 0.01


def run_slim(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, a network without batch norms, training that diverges, or an interruption.

    """
    check_shares((float(str(params["kept"])),))
    run_task({**SCRATCH, **params}, "channels", lambda task: _slimmed(task, params))


def _slimmed(task: Task, params: Mapping[str, object]) -> Pruned:
    """Train with the penalty, cut, measure batch norms again; train for the final epochs."""
    fit, include_residual = task.splits.fit, bool(params["include_residual"])
    if not params["from_scratch"] and any(is_restored(name) for name in task.network.layers()):
        raise ModelError(
            "the model file holds its batch norms folded into the layers before them, so that their scales do not "
            "compare; give --from-scratch, or an architecture and its weights"
        )
    if fit.labels is None:
        raise DatasetError("network slimming trains the network on labels, found none")
    slim_plan(task.network, find_groups(task.network), 1 - task.kept, include_residual=include_residual)
    given = params["strength"]
    strength = usual_strength(task.training, len(fit)) if given is None else float(str(given))
    module = finetune(
        task.network.module, fit.inputs, fit.labels, task.training,
        penalty=GammaL1(strength, shifts=bool(params["shifts"])), progress=task.tell, precision=task.precision,
    ).module  # fmt: skip
    whole = Network(module, task.network.input_shape, task.network.shapes)
    groups = find_groups(whole)
    plan = slim_plan(whole, groups, 1 - task.kept, include_residual=include_residual)
    verify(whole, groups, plan, fit.inputs[:2])
    scores = gamma_scores(whole, groups)
    slimmed = [group for group in groups.groups if group.name in plan.kept]
    off = [group.name for group in slimmed if scores[list(group.units)].max() < SMALL]
    if off:
        raise SearchError(
            f"the penalty of strength {strength:.3g} has switched off all channels of {', '.join(map(repr, off))}; "
            "train for more --epochs, or give a smaller --strength"
        )
    units = [unit for group in slimmed for unit in group.units]
    cut = prune(whole, groups, plan)
    recalibrate(cut, fit.inputs[:RECALIBRATION_IMAGES])
    module = task.trained(cut, task.final_epochs)
    return Pruned(
        module,
        {name: len(indices) for name, indices in plan.kept.items()},
        replace(plan, model_sha256=task.sha256),
        whole=whole.module,
        details={"strength": strength, "small_gammas": float(np.mean(scores[units] < SMALL))},
    )
