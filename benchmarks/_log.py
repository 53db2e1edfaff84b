"""What a script tells while its jobs run."""

import json

from autoprune.service.specs.progress import Progress


def log_progress(progress: Progress) -> None:
    """Print one line in twenty."""
    if progress.total == 0 or progress.done % max(1, progress.total // 20) == 0:
        print(json.dumps(progress.model_dump()), flush=True)  # noqa: T201 - a script's log
