"""The commands ``study ...``: what the layers of a network bear, and who knows it. Heavy imports as in :mod:`app`."""

from typing import Annotated

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli import training_options as training
from autoprune.service.cli.shared_options import options_of

study_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Study a trained network: pictures, CSV and JSON; nothing is delivered.",
)

_PANEL = "Study"

_Criterion = Annotated[
    str, typer.Option(help="Whose lowest scores go first, of `autoprune criteria`.", rich_help_panel=_PANEL)
]
_Steps = Annotated[int, typer.Option(help="Shares that are cut; 9: 10%, 20% .. 90%.", rich_help_panel=_PANEL)]
_Recoveries = Annotated[
    list[str] | None,
    typer.Option(
        "--recovery",
        help="After the cut: none, batchnorm (recalibrated) or reconstruction (both); repeat. (default: a curve each)",
        rich_help_panel=_PANEL,
    ),
]
_Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="Only this group of `autoprune inspect`; repeat.", rich_help_panel=_PANEL),
]
_Criteria = Annotated[
    list[str] | None,
    typer.Option(
        "--criterion", help="Compare this one; repeat. (default: all that can score MODEL)", rich_help_panel=_PANEL
    ),
]
_Channels = Annotated[
    int,
    typer.Option(help="Most channels per group that are left out, drawn by the seed; 0: all.", rich_help_panel=_PANEL),
]
_LossImages = Annotated[
    int, typer.Option("--loss-images", help="Fit images that the loss is measured on.", rich_help_panel=_PANEL)
]
_KeptMacs = Annotated[float, typer.Option(help="Share of the MACs left in the end.", rich_help_panel=_PANEL)]
_Cuts = Annotated[int, typer.Option(help="Cuts of the iterative schedule.", rich_help_panel=_PANEL)]
_Epochs = Annotated[int, typer.Option(help="Passes over the fit images in all.", rich_help_panel=_PANEL)]
_Rate = Annotated[float, typer.Option(help="Of relative-adamw, as in fine-tuning.", rich_help_panel=_PANEL)]
_Repeats = Annotated[int, typer.Option(help="How often each schedule is run.", rich_help_panel=_PANEL)]


def _shared(
    ctx: typer.Context,
    model: opt.Model,
    dataset: opt.Data,
    output: opt.OutputFolder,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    fit_images: opt.FitImages = None,
    search_images: opt.SearchImages = None,
    normalization: opt.Normalization = None,
    include_residual: opt.IncludeResidual = False,
    seed: opt.Seed = 0,
    threads: opt.Threads = 1,
    as_json: opt.Json = False,
) -> None:
    """Have the options of all studies."""


@study_app.command()
@options_of(
    _shared, criterion=(_Criterion, "l1"), steps=(_Steps, 9), recoveries=(_Recoveries, None), groups=(_Groups, None)
)
def sensitivity(ctx: typer.Context, **_: object) -> None:
    """Prune every group of channels alone, to a grid of shares: a curve per group, with and without recovery.

    Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.study_run import run_study_command

    run_study_command("sensitivity", ctx.params)


@study_app.command()
@options_of(_shared, criteria=(_Criteria, None), channels=(_Channels, 32), images=(_LossImages, 512))
def oracle(ctx: typer.Context, **_: object) -> None:
    """Leave every channel out alone and rank criteria by how well they foretell what the loss gains; needs labels.

    Nothing is recalibrated or trained. Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.study_run import run_study_command

    run_study_command("oracle", ctx.params)


@study_app.command()
@options_of(
    _shared,
    criterion=(_Criterion, "taylor-gate"),
    kept=(_KeptMacs, 0.5),
    rounds=(_Cuts, 5),
    epochs=(_Epochs, 4),
    learning_rate=(_Rate, 0.003),
    flip=(training.Flip, False),
    repeats=(_Repeats, 3),
)
def schedule(ctx: typer.Context, **_: object) -> None:
    """Cut once or in several rounds, to the same MACs with the same training, over several seeds; needs labels.

    Runs that are done are kept: the same command again goes on behind them.
    """
    from autoprune.service.cli.study_run import run_study_command

    run_study_command("schedule", ctx.params)
