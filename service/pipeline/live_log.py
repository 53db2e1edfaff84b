"""Writes down trials as they become known, for those who watch a job (:mod:`autoprune.service.results.live_search`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.files import write_whole
from autoprune.search.searcher import Trial
from autoprune.service.pipeline.inspection import group_views
from autoprune.service.pipeline.job import Job
from autoprune.service.pipeline.outcome import trial_views, view
from autoprune.service.results.live_search import LIVE, LiveHead, LiveTrial


def begin_log(job: Job) -> None:
    """Begin the log of a whole job anew: searches that are run again write the same trials again."""
    remove_log(job.directory)
    problem = job.inputs.problem
    head = LiveHead(
        cost=problem.cost(problem.costs.full()),
        limits=dict(problem.limits),
        groups=group_views(problem.network, problem.all_groups),
        decision_groups=list(problem.names),
        search=view(job.evaluator.unpruned()),
    )
    write_whole(job.directory / LIVE, (head.model_dump_json() + "\n").encode())


def remove_log(directory: Path) -> None:
    """Remove the log of a job: its result says more."""
    for file in (directory / LIVE, *directory.glob(f"seed-*/{LIVE}")):
        file.unlink(missing_ok=True)


@contextmanager
def live_log(job: Job, policy: str) -> Iterator[Callable[[Trial], None]]:
    """Lend what writes down the trials of one policy's search, each at once."""
    job.directory.mkdir(parents=True, exist_ok=True)
    with (job.directory / LIVE).open("a", encoding="utf-8") as stream:

        def write(trial: Trial) -> None:
            said = LiveTrial(policy=policy, kept=list(trial.kept), trial=trial_views([trial])[0])
            stream.write(said.model_dump_json() + "\n")
            stream.flush()

        yield write
