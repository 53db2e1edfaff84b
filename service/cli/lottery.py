"""The command ``lottery``: iterative magnitude pruning with rewinding, and its control."""

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from autoprune.errors import DatasetError, UnknownNameError
from autoprune.network.initial_weights import reinitialised
from autoprune.network.masked import masked
from autoprune.recovery.finetune import finetune
from autoprune.service.cli.prune import ROUNDS, SCOPES, scope_of
from autoprune.service.cli.pruning_task import SCRATCH, Pruned, Task, run_task
from autoprune.service.pipeline.outcome import view
from autoprune.service.pipeline.recovery import Scorer
from autoprune.training.iterative_pruning import prune_in_rounds
from autoprune.training.iterative_settings import IterativeSettings
from autoprune.training.masks import MaskKeeper, Masks, kept_weights
from autoprune.training.rounds import check_shares


def run_lottery(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, training that diverges, a layer that would collapse, or an interruption.

    """
    check_shares((float(str(params["kept"])),))
    for name, known in (("schedule", tuple(ROUNDS)), ("scope", SCOPES)):
        if params[name] not in known:
            raise UnknownNameError(name, str(params[name]), known)
    run_task({**SCRATCH, "final_epochs": 0, **params}, "weights", lambda task: _ticket(task, params), resumes=True)


def _ticket(task: Task, params: Mapping[str, object]) -> Pruned:
    """Find a ticket; train the control where it is asked for."""
    fit, rounds = task.splits.fit, int(str(params["rounds"]))
    if fit.labels is None:
        raise DatasetError("lottery tickets are trained on labels, found none")
    shares = ROUNDS[str(params["schedule"])](task.kept, rounds)
    settings = IterativeSettings(task.training, shares, int(str(params["rewind_steps"])), scope_of(params))
    found = prune_in_rounds(
        task.network, fit.inputs, fit.labels, settings, folder=task.folder / "rounds", progress=task.tell,
        precision=task.precision,
    )  # fmt: skip
    control = {"control": _control(task, found.masks, rounds)} if params["control"] else {}
    score = Scorer(task.splits.search, found.rounds[0].network.module)
    table = [
        {"kept": kept_weights(each.masks), "search": view(score(each.network.module)).model_dump()}
        for each in found.rounds
    ]
    return Pruned(
        found.trained.module,
        {name: int(mask.sum()) for name, mask in found.masks.items()},
        whole=found.rounds[0].network.module,
        others=control,
        details={**{name: params[name] for name in ("schedule", "scope", "rewind_steps")}, "rounds": table},
    )


def _control(task: Task, masks: Masks, rounds: int) -> fx.GraphModule:
    """Return the same masks over other initial weights, trained like a ticket that is rewound to step 0."""
    fit = task.splits.fit
    start = masked(reinitialised(task.network, task.training.seed + _OTHER), masks)
    settings = replace(task.training, seed=task.training.seed + rounds)
    return finetune(
        start.module, fit.inputs, fit.labels, settings, after_step=MaskKeeper(masks), progress=task.tell,
        precision=task.precision,
    ).module  # fmt: skip


#: Far from the seeds of networks.
_OTHER = 1000
