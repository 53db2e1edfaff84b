"""The commands that prune in the course of training: nothing is searched. Heavy imports happen inside, as in `app`."""

from typing import Annotated

import typer

from autoprune.service.cli import options as opt

schedules_app = typer.Typer()

_PANEL = "Schedule"

#: Options of `prune` that the other two have no use for, or have their own of.
_PRUNE_ALONE = (
    "unit", "criterion", "tolerance", "final_epochs", "optimizer", "distillation", "temperature",
    "hints", "freeze_batchnorm", "finetune_epochs", "learning_rate",
)  # fmt: skip
_TRAINING = {
    "finetune_epochs": (
        Annotated[
            int,
            typer.Option("--epochs", min=1, help="Passes over the fit images of a training.", rich_help_panel=_PANEL),
        ],
        20,
    ),
    "learning_rate": (opt.LearningRate, 0.1),
}


@schedules_app.command()
def prune(
    ctx: typer.Context,
    model: opt.Model,
    dataset: opt.Data,
    output: opt.OutputFolder,
    kept: opt.Kept,
    unit: opt.Unit = "weights",
    criterion: opt.PruneCriterion = None,
    schedule: opt.Schedule = "exponential",
    rounds: opt.Rounds = 5,
    scope: opt.Scope = "global",
    tolerance: opt.Tolerance = None,
    include_residual: opt.IncludeResidual = False,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    report_dataset: opt.ReportData = None,
    fit_images: opt.FitImages = None,
    search_images: opt.SearchImages = None,
    report_images: opt.ReportImages = None,
    normalization: opt.Normalization = None,
    seed: opt.Seed = 0,
    finetune_epochs: opt.RoundEpochs = 1,
    final_epochs: opt.FinalEpochs = 0,
    from_scratch: opt.FromScratch = False,
    optimizer: opt.Optimizer = "relative-adamw",
    learning_rate: opt.LearningRate = 0.003,
    weight_decay: opt.WeightDecay = 5e-4,
    momentum: opt.Momentum = 0.9,
    batch_size: opt.BatchSize = 64,
    label_smoothing: opt.LabelSmoothing = 0.0,
    distillation: opt.Distillation = 1.0,
    temperature: opt.Temperature = 4.0,
    hints: opt.Hints = 10.0,
    freeze_batchnorm: opt.FreezeBatchnorm = True,
    augment: opt.Augment = True,
    flip: opt.Flip = True,
    opset: opt.Opset = 18,
    threads: opt.Threads = 1,
    as_json: opt.Json = False,
) -> None:
    """Prune weights or channels by a criterion on a schedule, with training in between; nothing is searched.

    Weights in rounds go on where Ctrl-C stopped them when the same command is given again. Pruning at initialisation:
    --from-scratch --criterion synflow --rounds 100 --epochs 0 --final-epochs 20.
    """
    from autoprune.service.cli.prune import run_prune
    from autoprune.service.cli.pruning_task import SCRATCH

    sources = {name: ctx.get_parameter_source(name) for name in SCRATCH if from_scratch}
    preset = {name: SCRATCH[name] for name, source in sources.items() if source is None or source.name == "DEFAULT"}
    run_prune({**ctx.params, **preset})


@schedules_app.command()
@opt.options_of(
    prune,
    without=(*_PRUNE_ALONE, "schedule", "rounds", "scope"),
    **_TRAINING,
    strength=(
        Annotated[
            float | None,
            typer.Option(min=0, help="Of the penalty. (default: by the length of training)", rich_help_panel=_PANEL),
        ],
        None,
    ),
    shifts=(
        Annotated[bool, typer.Option(help="Penalise the shifts of batch norms too.", rich_help_panel=_PANEL)],
        True,
    ),
    soft_masks=(
        Annotated[
            bool,
            typer.Option(
                "--soft-masks",
                help="Penalise factors of their own on channels, instead of the scales of batch norms: any network.",
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    final_epochs=(opt.FinalEpochs, 5),
)
def slim(ctx: typer.Context, **_: object) -> None:
    """Network Slimming: train with L1 on the scales of batch norms, then cut channels by one threshold over all layers.

    Training begins with the network's weights, for which 0.1 may be too high a rate, or --from-scratch.
    """
    from autoprune.service.cli.slim import run_slim

    run_slim(ctx.params)


@schedules_app.command()
@opt.options_of(
    prune,
    without=(*_PRUNE_ALONE, "include_residual"),
    **_TRAINING,
    rewind_steps=(
        Annotated[
            int,
            typer.Option(min=0, help="Step of training that weights are put back to.", rich_help_panel=_PANEL),
        ],
        0,
    ),
    control=(
        Annotated[
            bool, typer.Option("--control", help="Also train the masks over other weights.", rich_help_panel=_PANEL)
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
