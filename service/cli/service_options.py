"""Options of commands that run a service or speak to one, as in :mod:`options`."""

from typing import Annotated

import typer

from autoprune.service.settings import MOST_WORKERS, Settings

_SERVICE = "Service"

JobsAtOnce = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=MOST_WORKERS,
        help="Jobs to run at a time; 0: only accept them. Without it $AUTOPRUNE_WORKERS, or 1.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the service. (default: $AUTOPRUNE_URL, or the one of autoprune serve here)",
        rich_help_panel=_SERVICE,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Also watch the job until its end.", rich_help_panel=_SERVICE)]
JobId = Annotated[
    str, typer.Argument(help="Id of a job, comparison or study: job_..., cmp_..., std_...", metavar="JOB_ID")
]


def settings_with(workers: int | None) -> Settings:
    """Return the settings of the environment, with another number of jobs at a time if one is given.

    Raises:
        SettingsError: A variable of the environment holds something unusable.

    """
    settings = Settings.from_environment()
    return settings if workers is None else settings.with_workers(workers)
