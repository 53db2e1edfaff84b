"""The commands ``device ...``: latency tables of devices. Heavy imports happen inside, as in :mod:`app`."""

from pathlib import Path
from typing import Annotated

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli.shared_options import options_of

_MEASURING = "Measuring"

Name = Annotated[
    str | None, typer.Option("--device", help="Name of the device, e.g. pixel-8.", rich_help_panel=_MEASURING)
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the runtime on the device.", rich_help_panel=_MEASURING)]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, or int8 for networks that are quantised after pruning (search --int8).", rich_help_panel=_MEASURING
    ),
]
TimeBudget = Annotated[
    str, typer.Option(help="For everything together, e.g. 90s or 10m.", rich_help_panel=_MEASURING, metavar="TIME")
]
Networks = Annotated[
    int,
    typer.Option(
        min=3, max=100, help="Random pruned networks that are measured whole, to check.", rich_help_panel=_MEASURING
    ),
]
Residual = Annotated[
    bool, typer.Option("--residual/--no-residual", help="Also widths of residual streams.", rich_help_panel=_MEASURING)
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Forget what an earlier, unfinished run measured.", rich_help_panel=_MEASURING),
]
Table = Annotated[str, typer.Argument(help="Name of a device, id of a stored table, or a file.", metavar="TABLE")]

device_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Latency tables: how long layers take on a device, to prune for it.",
)


@device_app.command()
def pack(
    ctx: typer.Context,
    model: opt.Model,
    output: opt.OutputFolder,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    device: Name = None,
    threads: Threads = 1,
    precision: Precision = "fp32",
    time_budget: TimeBudget = "10m",
    networks: Networks = 9,
    max_ratio: opt.MaxRatio = 0.9,
    residual: Residual = True,
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
) -> None:
    """Write a folder to be copied to a device that has Python, numpy and onnxruntime: it measures MODEL's layers."""
    from autoprune.service.cli.device_measure import run_pack

    run_pack(ctx.params)


@device_app.command()
@options_of(
    pack,
    output=(
        Annotated[
            Path | None,
            typer.Option("--output", "-o", help="Also write the table to this file.", rich_help_panel="Output"),
        ],
        None,
    ),
    fresh=(Fresh, False),
)
def measure(ctx: typer.Context, **_: object) -> None:
    """Measure MODEL's layers on this machine and keep the table under --device NAME (default: the processor's name).

    Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.device_measure import run_measure

    run_measure(ctx.params)


@device_app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A latency table that a device wrote.", metavar="FILE")],
    device: Annotated[str | None, typer.Option("--device", help="Refuse tables of other devices.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Throw away what is stored under its conditions.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Check a table and keep it, merged with what is stored under the same conditions: newer times win."""
    from autoprune.service.cli.device_tables import run_import

    run_import(ctx.params)


@device_app.command("list")
def list_(as_json: opt.Json = False) -> None:
    """List the stored tables."""
    from autoprune.service.cli.device_tables import run_list

    run_list(as_json=as_json)


@device_app.command()
def show(
    table: Table,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also draw it: an HTML page that works offline.", metavar="FILE")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Show what a table holds, what it was measured under, and how far its predictions are from the truth."""
    from autoprune.service.cli.device_tables import run_show

    run_show(table, report, as_json=as_json)


@device_app.command()
def diff(
    before: Annotated[str, typer.Argument(help="As TABLE of show.", metavar="BEFORE")],
    after: Annotated[str, typer.Argument(help="As TABLE of show.", metavar="AFTER")],
    as_json: opt.Json = False,
) -> None:
    """Compare two tables: conditions, units in one alone, and times that differ, largest factor first."""
    from autoprune.service.cli.device_tables import run_diff

    run_diff(before, after, as_json=as_json)


@device_app.command()
def merge(
    tables: Annotated[list[str], typer.Argument(help="Tables of the same conditions, as of show.", metavar="TABLE...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", rich_help_panel="Output")],
) -> None:
    """Write one table with what several hold; where they overlap, the newer times win."""
    from autoprune.service.cli.device_tables import run_merge

    run_merge(tables, output)
