"""The commands that prune in the course of training: nothing is searched. Heavy imports happen inside, as in `app`."""

from typing import Annotated

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli import training_options as training
from autoprune.service.cli.search_command import search
from autoprune.service.cli.shared_options import TRAINING, options_of

schedules_app = typer.Typer()

#: Options of `prune` that the other two have no use for, or have their own of.
_PRUNE_ALONE = (
    "unit", "criterion", "tolerance", "final_epochs", "optimizer", "distillation", "temperature",
    "hints", "freeze_batchnorm", "finetune_epochs", "learning_rate",
)  # fmt: skip
_EPOCHS = (
    Annotated[
        int,
        typer.Option(
            "--epochs", min=1, help="Passes over the fit images of a training.", rich_help_panel=training.SCHEDULE
        ),
    ],
    20,
)
_RATE = (training.LearningRate, 0.1)


@schedules_app.command()
@options_of(
    search,
    only=(*TRAINING, "include_residual"),
    output=(opt.OutputFolder, ...),
    kept=(training.Kept, ...),
    unit=(training.Unit, "weights"),
    criterion=(training.PruneCriterion, None),
    schedule=(training.Schedule, "exponential"),
    rounds=(training.Rounds, 5),
    scope=(training.Scope, "global"),
    tolerance=(training.Tolerance, None),
    finetune_epochs=(training.RoundEpochs, 1),
    final_epochs=(training.FinalEpochs, 0),
    from_scratch=(training.FromScratch, False),
)
def prune(ctx: typer.Context, **_: object) -> None:
    """Prune weights or channels by a criterion on a schedule, with training in between; nothing is searched.

    Weights in rounds go on where Ctrl-C stopped them when the same command is given again. Pruning at initialisation:
    --from-scratch --criterion synflow --rounds 100 --epochs 0 --final-epochs 20.
    """
    from autoprune.service.cli.prune import run_prune
    from autoprune.service.cli.pruning_task import SCRATCH

    sources = {name: ctx.get_parameter_source(name) for name in SCRATCH if ctx.params["from_scratch"]}
    preset = {name: SCRATCH[name] for name, source in sources.items() if source is None or source.name == "DEFAULT"}
    run_prune({**ctx.params, **preset})


@schedules_app.command()
@options_of(
    prune,
    without=(*_PRUNE_ALONE, "schedule", "rounds", "scope"),
    finetune_epochs=_EPOCHS,
    learning_rate=_RATE,
    strength=(
        Annotated[
            float | None,
            typer.Option(
                min=0, help="Of the penalty. (default: by the length of training)", rich_help_panel=training.SCHEDULE
            ),
        ],
        None,
    ),
    shifts=(
        Annotated[
            bool, typer.Option(help="Penalise the shifts of batch norms too.", rich_help_panel=training.SCHEDULE)
        ],
        True,
    ),
    soft_masks=(
        Annotated[
            bool,
            typer.Option(
                "--soft-masks",
                help="Penalise factors of their own on channels, instead of the scales of batch norms: any network.",
                rich_help_panel=training.SCHEDULE,
            ),
        ],
        False,
    ),
    final_epochs=(training.FinalEpochs, 5),
)
def slim(ctx: typer.Context, **_: object) -> None:
    """Network Slimming: train with L1 on the scales of batch norms, then cut channels by one threshold over all layers.

    Training begins with the network's weights, for which 0.1 may be too high a rate, or --from-scratch.
    """
    from autoprune.service.cli.slim import run_slim

    run_slim(ctx.params)


@schedules_app.command()
@options_of(
    prune,
    without=(*_PRUNE_ALONE, "include_residual"),
    finetune_epochs=_EPOCHS,
    learning_rate=_RATE,
    rewind_steps=(
        Annotated[
            int,
            typer.Option(
                min=0, help="Step of training that weights are put back to.", rich_help_panel=training.SCHEDULE
            ),
        ],
        0,
    ),
    control=(
        Annotated[
            bool,
            typer.Option(
                "--control", help="Also train the masks over other weights.", rich_help_panel=training.SCHEDULE
            ),
        ],
        False,
    ),
)
def lottery(ctx: typer.Context, **_: object) -> None:
    """Find a lottery ticket: train, prune the smallest weights, put the others back, round by round.

    Step 0 are the network's weights, or fresh ones with --from-scratch. Ctrl-C is safe, as in prune.
    """
    from autoprune.service.cli.lottery import run_lottery

    run_lottery(ctx.params)
