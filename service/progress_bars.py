"""How far a job is, as bars in a terminal: the same for the command line and for the Python client."""

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from autoprune.service.results.stages import stage_name
from autoprune.service.specs.progress import Progress as JobProgress

#: Bars that are shown of a comparison, which has one for every search.
MOST_BARS = 12

#: A stage of a job, of a policy, of a seed.
_Stage = tuple[str, str | None, int | None]


class ProgressBars:
    """One bar per stage and policy of a job, with the time that is left. A context manager; call it with progress."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[message]}"),
            console=console,
        )
        self._tasks: dict[_Stage, TaskID] = {}
        self._console = console
        self._said: tuple[_Stage, int] | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, progress: JobProgress) -> None:
        """Show how far the job is; where the console is a file, a line for every tenth of a stage."""
        if not self._console.is_terminal:
            self._say(progress)
            return
        key = (progress.stage, progress.policy, progress.seed)
        if progress.stage == "done":
            self._finish(None)
            return
        if key not in self._tasks:
            self._finish(key)
            label = escape(stage_name(progress))
            self._tasks[key] = self._bars.add_task(label, total=progress.total or None, message="", count="")
        self._bars.update(
            self._tasks[key],
            completed=progress.done,
            total=progress.total or None,
            message=escape(progress.message),
            count=f"{progress.done}/{progress.total}" if progress.total else str(progress.done),
        )

    def _say(self, progress: JobProgress) -> None:
        """Print a line when a new tenth of a stage is reached."""
        tenth = 10 * progress.done // progress.total if progress.total else 0
        said = ((progress.stage, progress.policy, progress.seed), tenth)
        if said != self._said:
            self._said = said
            count = f" {progress.done}/{progress.total}" if progress.total else ""
            self._console.print(escape(f"{stage_name(progress)}{count} {progress.message}"), highlight=False)

    def _finish(self, current: _Stage | None) -> None:
        """Fill the bars of all stages but the current one: they are over; of very many, show the last ones."""
        oldest = len(self._tasks) - MOST_BARS
        for number, (key, task_id) in enumerate(self._tasks.items()):
            if key != current:
                task = self._bars.tasks[self._bars.task_ids.index(task_id)]
                total = task.total or max(task.completed, 1)
                visible = number >= oldest
                self._bars.update(task_id, total=total, completed=total, message="", count="done", visible=visible)
