"""The command ``search``: one whole job in this process."""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from autoprune.errors import Cancelled
from autoprune.search.cluster import Cluster
from autoprune.service.cli.console import print_result, stderr, stdout, stop_on_interrupt
from autoprune.service.cli.errors import CommandError
from autoprune.service.cli.output_folder import alone_in
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.comparisons.comparison_result import FILE as COMPARISON
from autoprune.service.pipeline.job_files import JOURNAL
from autoprune.service.pipeline.run import run_job
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results.job_result import FILE as RESULT
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress
from autoprune.service.studies.study_result import FILE as STUDY

#: The settings of the job in a folder, beside its results.
SPEC_FILE = "job.json"

#: What a finished job, comparison or study leaves.
RESULTS = (RESULT, COMPARISON, STUDY)

_Spec = TypeVar("_Spec", bound=BaseModel, contravariant=True)
_Result = TypeVar("_Result", covariant=True)


def run_search_command(params: Mapping[str, object]) -> None:
    """Run the command on its parameters.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or an interruption (:class:`Cancelled`).

    """
    spec = read_spec(spec_values(params))
    directory = chosen_folder(params, default_folder(spec))
    result = run_in_folder(spec, directory, partial(run_job, cluster=chosen_cluster(params)))
    if params["as_json"]:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_result(stdout(), result, directory)


class _Run(Protocol[_Spec, _Result]):
    """Runs a job, a comparison or a study in a folder."""

    def __call__(
        self,
        spec: _Spec,
        directory: Path,
        *,
        progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> _Result:
        """Return its result."""
        ...


def run_in_folder(spec: _Spec, directory: Path, run: _Run[_Spec, _Result]) -> _Result:
    """Run a job, a comparison or a study alone in its folder, with progress on stderr.

    Raises:
        AutopruneError: Bad input, an infeasible budget, or an interruption (:class:`Cancelled`).

    """
    console = stderr()
    try:
        with alone_in(directory), stop_on_interrupt(console) as should_stop:
            note_settings(directory, spec, console)
            with ProgressBars(console) as bars:
                return run(spec, directory, progress=bars, should_stop=should_stop)
    except (KeyboardInterrupt, Cancelled):
        console.print(resume_hint(directory), soft_wrap=True)
        raise


def chosen_folder(params: Mapping[str, object], default: Path) -> Path:
    """Return the folder that the user named, or the default one."""
    chosen = params["output"]
    return default if chosen is None else Path(str(chosen))


def chosen_cluster(params: Mapping[str, object]) -> Cluster | None:
    """Return the cluster that the user named, or the environment.

    Raises:
        ClusterError: It cannot be used.

    """
    named = params["cluster"]
    return Cluster.from_environment(None if named is None else str(named))


def resume_hint(directory: Path) -> str:
    """Say how to go on with a job that was interrupted."""
    return f"what was evaluated is kept in {escape(str(directory))}: run the same command again to go on"


def default_folder(spec: JobSpec) -> Path:
    """Return the folder of a job for which the user named none: one for every model and budget."""
    budget = re.sub(r"[^A-Za-z0-9.]+", "-", spec.budget.replace("%", "pct")).strip("-")
    return Path("runs") / f"{Path(spec.model).stem}-{budget}"


def note_settings(directory: Path, spec: BaseModel, console: Console) -> None:
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
    names = settings.keys() | before.keys()  # a comparison has settings that a search has not
    changed = ", ".join(sorted(name for name in names if before.get(name) != settings.get(name)))
    if changed and any((directory / name).exists() for name in RESULTS):
        raise CommandError(
            f"--output {directory}: holds the results of a job with other settings ({changed}); "
            "choose another folder, or remove that one"
        )
    note.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    if changed and (directory / JOURNAL).exists():
        console.print(
            f"[yellow]note:[/] the unfinished job in {escape(str(directory))} had other settings ({changed}); "
            "evaluations that still apply are reused",
            soft_wrap=True,
        )
