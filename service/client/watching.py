"""Watching a job: bars where somebody looks, and patience with a service that is away for a while."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from rich.console import Console

from autoprune.service.client.errors import ClientError
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.specs.progress import Progress

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0

_Answer = TypeVar("_Answer")


def patiently(ask: Callable[[], _Answer], patience_s: float, deadline: float) -> _Answer:
    """Return what `ask` returns, asking again, less and less often, while the service cannot be reached.

    Raises:
        ClientError: The service refuses; or it could not be reached for `patience_s` seconds, or until `deadline`
            (of :func:`time.monotonic`).

    """
    give_up, pause_s = min(time.monotonic() + patience_s, deadline), FIRST_PAUSE_S
    while True:
        try:
            return ask()
        except ClientError as error:
            if not error.is_transient or time.monotonic() >= give_up:
                raise
        time.sleep(max(0.0, min(pause_s, give_up - time.monotonic())))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@contextlib.contextmanager
def bars_in_terminal(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """Yield a function to be told how far a job is: the given one, or bars on stderr if that is a terminal."""
    console = Console(stderr=True, highlight=False)
    if not isinstance(progress, bool):
        yield progress
    elif progress and console.is_terminal:
        with ProgressBars(console) as bars:
            yield bars
    else:
        yield lambda _: None
