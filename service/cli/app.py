"""The command line. Heavy imports happen inside the commands, so that help and errors are instant."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autoprune.errors import AutopruneError, Cancelled
from autoprune.service.cli import options as opt
from autoprune.service.cli import policy_options as policy
from autoprune.service.cli import service_options
from autoprune.service.cli import training_options as training
from autoprune.service.cli.device import device_app
from autoprune.service.cli.errors import CommandError
from autoprune.service.cli.keys import keys_app
from autoprune.service.cli.remote import remote_app
from autoprune.service.cli.schedules import schedules_app
from autoprune.service.cli.search_command import search
from autoprune.service.cli.shared_options import TRAINING, options_of
from autoprune.service.cli.study import study_app
from autoprune.service.settings import DEFAULT_PORT


class _Commands(TyperGroup):
    """Commands whose user errors are one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as in the base class
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            _reword(error)
            raise
        except Cancelled as error:
            typer.echo(f"stopped: {_one_line(error)}", err=True)
            raise typer.Exit(130) from None
        except AutopruneError as error:
            typer.echo(f"error: {_one_line(error)}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A trained CNN and a hard budget in, a smaller certified ONNX network out.",
)

app.add_typer(device_app, name="device")
app.add_typer(keys_app, name="keys")
app.add_typer(study_app, name="study")
app.add_typer(remote_app)
app.add_typer(schedules_app)


def main() -> None:
    """Run the command line: exit code 0, 2 for user errors, 130 when interrupted, 1 for defects (with traceback)."""
    app()


def _one_line(error: Exception) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())


def _reword(error: typer.BadParameter) -> None:
    """Say in our words what was expected of an option, where typer repeats pydantic's."""
    problems = getattr(error.__cause__ or error.__context__, "errors", None)
    if problems is not None:
        from autoprune.service.specs.field_problems import problems_of

        first = problems_of(problems())[0]
        error.message = f"{first['expected']} (found {first['found']})"


def _print_version(asked: bool) -> None:
    """Print the version and stop, if asked to."""
    if asked:
        typer.echo(f"autoprune {version('autoprune')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take what all commands share."""


@app.command()
def inspect(
    ctx: typer.Context,
    model: opt.Model,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    budget: opt.OptionalBudget = None,
    device: opt.Device = None,
    int8: Annotated[bool, typer.Option("--int8", help="Take the device's table of int8 networks.")] = False,
    include_residual: opt.IncludeResidual = False,
    round_to: opt.RoundTo = 1,
    max_ratio: opt.MaxRatio = 0.9,
    as_json: opt.Json = False,
) -> None:
    """Show what can be pruned in a network, and how far; nothing is changed and no images are needed."""
    from autoprune.service.cli.inspect import run_inspect

    run_inspect(ctx.params)


app.command()(search)


@app.command()
def criteria(as_json: opt.Json = False) -> None:
    """List what --criterion can rank channels by: the meaning, the needs and the paper of each."""
    from autoprune.service.cli.criteria import run_criteria

    run_criteria(as_json=as_json)


@app.command("what-if")
def what_if(
    folder: Annotated[Path, typer.Argument(help="Folder of a search.", metavar="FOLDER")],
    budgets: opt.Budgets,
    as_json: opt.Json = False,
) -> None:
    """Predict what other budgets would cost, with an interval, from what a search in FOLDER has evaluated.

    No network is run and no image is read: the answer takes less than a second.
    """
    from autoprune.service.cli.what_if import run_what_if

    run_what_if(folder, budgets, as_json=as_json)


@app.command()
@options_of(
    search,
    policies=(opt.Policies, ["uniform", "random", "sensitivity", "exact"]),
    seed=(opt.DealingSeed, 0),
    seeds=(opt.Seeds, 3),
)
def compare(ctx: typer.Context, **_: object) -> None:
    """Search with several policies over several seeds, and say who beats whom, by how much, and how surely.

    Uniform, random and sensitivity always take part. Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.compare import run_compare_command

    run_compare_command(ctx.params)


@app.command()
@options_of(
    search,
    only=TRAINING,
    output=(opt.OutputFolder, ...),
    finetune_epochs=(training.Epochs, 10),
    plan=(opt.Plan, ...),
    pruned_weights=(opt.PrunedWeights, None),
)
def finetune(ctx: typer.Context, **_: object) -> None:
    """Train a pruned network further, with the original MODEL as teacher, and export it again.

    Use the seed and image options of the search, so that no image of its search and report splits is trained on.
    Ctrl-C is safe: the same command again goes on where it stopped.
    """
    from autoprune.service.cli.finetune import run_finetune

    run_finetune(ctx.params)


@app.command()
def export(
    ctx: typer.Context,
    model: opt.Model,
    plan: opt.Plan,
    output: opt.OutputFile,
    pruned_weights: opt.PrunedWeights = None,
    weights: opt.Weights = None,
    architecture: opt.Architecture = None,
    num_classes: opt.NumClasses = None,
    input_shape: opt.InputShape = None,
    int8: opt.ExportInt8 = False,
    dataset: opt.OptionalData = None,
    fit_images: opt.FitImages = None,
    search_images: opt.SearchImages = None,
    normalization: opt.Normalization = None,
    seed: opt.Seed = 0,
    opset: opt.Opset = 18,
    as_json: opt.Json = False,
) -> None:
    """Write a pruned network as ONNX: the original MODEL, a plan and weights in, a checked file out.

    With --int8 and images, also an int8 file beside it, calibrated on fit images, both scored on search images.
    """
    from autoprune.service.cli.export import run_export

    run_export(ctx.params)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the demo's files.")] = Path("demo"),
) -> None:
    """Train a small network on handwritten digits, prune it through the service, and show what came out (a minute)."""
    from autoprune.service.cli.demo import run_demo

    run_demo(output)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; needs API keys unless loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = DEFAULT_PORT,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error; info, or what $AUTOPRUNE_LOG_LEVEL says.")
    ] = None,
    workers: service_options.JobsAtOnce = None,
) -> None:
    """Run the REST service; its files and records live in $AUTOPRUNE_HOME."""
    if log_level not in (None, "debug", "info", "warning", "error"):
        raise CommandError(f"--log-level: expected debug, info, warning or error; found {log_level!r}")
    from autoprune.service.rest.server import serve as run_server

    settings = service_options.settings_with(workers)
    run_server(host, port, settings=settings, ready=lambda url: typer.echo(f"serving at {url}"), log_level=log_level)


@app.command()
def work(workers: service_options.JobsAtOnce = None) -> None:
    """Run jobs without the REST service, beside others that share $AUTOPRUNE_HOME and $AUTOPRUNE_DB."""
    from autoprune.service.engine.working import work as run_jobs

    settings = service_options.settings_with(workers)
    run_jobs(settings, ready=lambda count: typer.echo(f"running up to {count} jobs at a time"))


@app.command()
@options_of(
    search,
    without=("output", "cluster", "as_json"),
    continue_from=(opt.ContinueFromJob, None),
    amc_agent=(policy.AgentOfJob, None),
    wait=(service_options.Wait, False),
    url=(service_options.Url, None),
)
def submit(ctx: typer.Context, **_: object) -> None:
    """Let a running service search: send what it does not have yet, submit the job, print its id.

    MODEL and DATA may also be ids of what was uploaded before. `autoprune watch` and `get` go on with the job's id.
    """
    from autoprune.service.cli.remote_jobs import run_submit

    run_submit(ctx.params)


if __name__ == "__main__":
    main()
