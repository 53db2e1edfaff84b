"""The commands about jobs of a running service. Heavy imports happen inside, as in :mod:`app`."""

from pathlib import Path
from typing import Annotated

import typer

from autoprune.service.cli import options as opt
from autoprune.service.cli import service_options

remote_app = typer.Typer()


@remote_app.command()
def watch(job_id: service_options.JobId, url: service_options.Url = None, as_json: opt.Json = False) -> None:
    """Watch a job of a service until its end, and print what it found. The exit code is 2 if it fails.

    Ctrl-C ends the watching; the job goes on.
    """
    from autoprune.service.cli.remote_jobs import run_watch

    run_watch(job_id, url, as_json=as_json)


@remote_app.command()
def get(
    job_id: service_options.JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the files. (default: runs/JOB_ID)")
    ] = None,
    url: service_options.Url = None,
) -> None:
    """Download everything that a finished job left: report, ONNX files, plans, weights, certificates."""
    from autoprune.service.cli.remote_jobs import run_get

    run_get(job_id, url, output)


@remote_app.command()
def jobs(
    state: Annotated[
        str | None, typer.Option(help="Only these: queued, running, succeeded, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 20,
    url: service_options.Url = None,
    as_json: opt.Json = False,
) -> None:
    """List the newest jobs and comparisons of a service."""
    from autoprune.service.cli.remote_jobs import run_jobs

    run_jobs(url, state, limit, as_json=as_json)


@remote_app.command()
def cancel(job_id: service_options.JobId, url: service_options.Url = None) -> None:
    """End a job of a service: at once while it is queued, within seconds while it runs."""
    from autoprune.service.cli.remote_jobs import run_cancel

    run_cancel(job_id, url)
