"""The command ``search``: one whole job in this process."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from autoprune.errors import Cancelled
from autoprune.service._cli_console import ProgressBars, print_result, stderr, stdout, stop_on_interrupt
from autoprune.service._cli_options import CommandError, spec_values
from autoprune.service.locks import held
from autoprune.service.pipeline import RESULT, run_job
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
    directory = Path(str(chosen)) if chosen is not None else default_folder(spec)
    console = stderr()
    make_folder(directory)
    try:
        with held(directory / ".lock") as alone, stop_on_interrupt(console) as should_stop:
            if not alone:
                raise CommandError(
                    f"--output {directory}: another search is running there; wait for it or choose another"
                )
            note_settings(directory, spec, console)
            with ProgressBars(console) as bars:
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


def default_folder(spec: JobSpec) -> Path:
    """Return the folder of a job for which the user named none: one for every model and budget."""
    budget = re.sub(r"[^A-Za-z0-9.]+", "-", spec.budget).strip("-")
    return Path("runs") / f"{Path(spec.model).stem}-{budget}"


def make_folder(directory: Path) -> None:
    """Make the folder of a job.

    Raises:
        CommandError: It cannot be made or written.

    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".lock").touch()
    except OSError as error:
        raise CommandError(f"--output {directory}: cannot write there ({error.strerror})") from error


def note_settings(directory: Path, spec: JobSpec, console: Console) -> None:
    """Note the settings of a job in its folder; say so where an unfinished job had others.

    Raises:
        CommandError: The folder holds the results of a job with other settings.

    """
    note = directory / SPEC_FILE
    settings = spec.model_dump(mode="json")
    try:
        before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else settings
    except ValueError:
        before = {}
    if not isinstance(before, dict):
        before = {}
    changed = ", ".join(sorted(name for name in settings if before.get(name) != settings[name]))
    if changed and (directory / RESULT).exists():
        raise CommandError(
            f"--output {directory}: holds the results of a job with other settings ({changed}); "
            "choose another folder, or remove that one"
        )
    note.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    if changed:
        console.print(
            f"[yellow]note:[/] the unfinished job in {escape(str(directory))} had other settings ({changed}); "
            "evaluations that still apply are reused",
            soft_wrap=True,
        )
