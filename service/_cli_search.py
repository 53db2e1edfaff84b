"""The command ``search``: one whole job in this process."""

import json
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from autoprune.errors import Cancelled
from autoprune.service._cli_console import ProgressBars, print_result, stderr, stdout, stop_on_interrupt
from autoprune.service._cli_options import CommandError, spec_values
from autoprune.service.pipeline import run_job
from autoprune.service.spec import JobSpec, read_spec

#: The settings of the job in a folder, beside its results.
SPEC_FILE = "job.json"


def run_search_command(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or an interruption (:class:`Cancelled`).

    """
    spec = read_spec(spec_values(params))
    chosen = params["output"]
    directory = Path(str(chosen)) if chosen is not None else Path("runs") / Path(spec.model).stem
    console = stderr()
    prepare_folder(directory, spec, console)
    try:
        with stop_on_interrupt(console) as should_stop, ProgressBars(console) as bars:
            result = run_job(spec, directory, progress=bars, should_stop=should_stop)
    except (KeyboardInterrupt, Cancelled):
        console.print(resume_hint(directory), soft_wrap=True)
        raise
    if params["as_json"]:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_result(stdout(), result, directory)


def resume_hint(directory: Path) -> str:
    """Say how to go on with a job that was interrupted."""
    return f"what was evaluated is kept in {escape(str(directory))}: run the same command again to go on"


def prepare_folder(directory: Path, spec: JobSpec, console: Console) -> None:
    """Make the folder of a job and note its settings; say so where another job's files will be replaced.

    Raises:
        CommandError: The folder cannot be made or written.

    """
    note = directory / SPEC_FILE
    settings = spec.model_dump(mode="json")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else settings
        note.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--output {directory}: cannot write there ({error.strerror})") from error
    except ValueError:
        before = {}
    if not isinstance(before, dict):
        before = {}
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        console.print(
            f"[yellow]note:[/] {escape(str(directory))} holds a job with other settings ({', '.join(changed)}); "
            "its results are replaced, evaluations that still apply are reused",
            soft_wrap=True,
        )
