"""A service without REST, which only runs jobs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from autoprune.service import logs
from autoprune.service.engine.service import opened
from autoprune.service.settings import Settings, SettingsError


def work(settings: Settings, *, ready: Callable[[int], None] = lambda workers: None) -> None:
    """Run jobs until interrupted or terminated; those that run then are queued again.

    Args:
        settings: Where the jobs are, and how many to run at a time.
        ready: Called once with that number.

    Raises:
        SettingsError: An unusable folder or database, or no jobs to run at a time.

    """
    if not settings.run_jobs:
        raise SettingsError("expected at least 1 job at a time, found 0: raise --workers or AUTOPRUNE_WORKERS")
    told = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with logs.written(settings.log_level), opened(settings):
            ready(settings.workers)
            told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
