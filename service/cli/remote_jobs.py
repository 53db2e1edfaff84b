"""What the commands about jobs of a running service do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoprune.errors import Cancelled
from autoprune.service.cli.console import print_comparison, print_files, stderr, stdout
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.client.client import Client
from autoprune.service.client.job import Comparison, Job, Study
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results.job_result import REPORT
from autoprune.service.results.stages import stage_name
from autoprune.service.results.wording import best_outcome
from autoprune.service.studies.study_result import FILE, TABLE


def run_submit(params: Mapping[str, Any]) -> None:
    """Submit a job with a command's parameters, and print its id.

    Raises:
        AutopruneError: What is sent cannot be read, or the service refuses it; or the job that is watched fails.

    """
    settings: dict[str, Any] = spec_values(params)
    with Client(params["url"]) as client:
        job = client.submit(**settings)
        typer.echo(job.id)
        if params["wait"]:
            _watch(job)
            _print_found(stdout(), job)


def run_watch(job_id: str, url: str | None, *, as_json: bool) -> None:
    """Show how far a job is until it has succeeded, then what it found.

    Raises:
        ClientError: No such job, it fails, or the service stays away.
        Cancelled: Nobody wants to watch it any longer.

    """
    with Client(url) as client:
        job = client.job(job_id)
        _watch(job)
        if as_json:
            typer.echo(_found(job).model_dump_json(indent=1))
        else:
            _print_found(stdout(), job)


def run_get(job_id: str, url: str | None, output: Path | None) -> None:
    """Download all artifacts of a job.

    Raises:
        ClientError: No such job, or it has not succeeded; or a file arrives damaged or cannot be written.

    """
    with Client(url) as client:
        job = client.job(job_id)
        folder = Path("runs") / job.id if output is None else output
        files = job.download(folder)
        console = stdout()
        if isinstance(job, Study):
            console.print(f"{len(files)} files in {escape(str(folder))}", soft_wrap=True)
            print_files(console, {"report": REPORT, "table": TABLE, "all": FILE}, folder)
            return
        console.print(f"{len(files)} files in {escape(str(folder))}; of the best network:", soft_wrap=True)
        print_files(console, {**best_outcome(job.result()).artifacts, "report": REPORT}, folder)


def run_jobs(url: str | None, state: str | None, limit: int, *, as_json: bool) -> None:
    """Print the newest jobs, comparisons and studies.

    Raises:
        ClientError: No such state, or no answer.

    """
    with Client(url) as client:
        found: list[Job] = []
        for listed in (client.jobs, client.comparisons, client.studies):
            found += listed(state=state, limit=limit)
    newest = sorted(found, key=lambda job: job.status.created_at, reverse=True)[:limit]
    if as_json:
        typer.echo(json.dumps([job.status.model_dump(mode="json") for job in newest], indent=1))
    else:
        stdout().print(_table(newest))


def run_cancel(job_id: str, url: str | None) -> None:
    """Ask for the end of a job.

    Raises:
        ClientError: No such job, or it has succeeded or failed already.

    """
    with Client(url) as client:
        job = client.job(job_id)
        job.cancel()
        typer.echo(f"{job.id}: {job.state if job.status.is_final else 'is being ended'}")


def _found(job: Job) -> BaseModel:
    """Return the document of what a job that has succeeded found."""
    if isinstance(job, Study):
        return job.study()
    return job.comparison() if isinstance(job, Comparison) else job.result()


def _watch(job: Job) -> None:
    """Draw bars until a job has succeeded."""
    try:
        with ProgressBars(stderr()) as bars:
            job.wait(progress=bars)
    except KeyboardInterrupt:
        raise Cancelled(
            f"job {job.id} goes on; `autoprune watch {job.id}` shows it again, `autoprune cancel {job.id}` ends it"
        ) from None


def _print_found(console: Console, job: Job) -> None:
    """Print what a job that has succeeded found, and how to get its files."""
    if isinstance(job, Comparison):
        from autoprune.service.cli.compare import print_policies  # imports torch

        print_policies(console, job.comparison())
    elif isinstance(job, Study):
        from autoprune.service.cli.study_run import print_study  # imports torch

        print_study(console, job.study())
    else:
        print_comparison(console, job.result())
    console.print(f"\n  autoprune get {job.id}", soft_wrap=True)


def _table(jobs: list[Job]) -> Table:
    """Table of jobs, the newest first."""
    table = Table(header_style="bold")
    for head in ("id", "state", "submitted", "budget or study", "policies", "at"):
        table.add_column(head, no_wrap=head == "id")
    for job in jobs:
        status = job.status
        progress = status.progress
        count = f" {progress.done}/{progress.total}" if progress is not None and progress.total else ""
        at = "-" if progress is None or status.is_final else f"{stage_name(progress)}{count}"
        submitted = status.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        policies = ", ".join(map(str, status.spec.get("policies", ())))
        what = str(status.spec.get("budget") or status.spec.get("study", "-"))
        cells = (job.id, job.state, submitted, what, policies or "-", at)
        table.add_row(*map(escape, cells))
    return table
