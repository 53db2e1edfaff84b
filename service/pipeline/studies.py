"""Searches of Optuna's samplers as studies that Optuna's own tools open: its command line and its dashboard.

A study in a file is a record, not the memory of a search: what searches go on from is the journal. It is written trial
by trial while the search runs, and anew by a job that is run again, to the same trials.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.search.front import CostRange
from autoprune.search.samplers import SAMPLERS
from autoprune.search.searcher import Trial
from autoprune.search.study import Direction, quiet_optuna, ratio_space, ratios_of
from autoprune.service.pipeline.job import Job
from autoprune.service.pipeline.job_files import STUDIES
from autoprune.service.results.wording import AGREEMENT, TOP1

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

#: How long a writer waits for a reader of the file.
_BUSY_S = 30.0


def search_log(job: Job, policy: str, costs: CostRange | None) -> AbstractContextManager[Callable[[Trial], None]]:
    """Lend what takes the trials of a policy's search: a study in the job's folder where a sampler of Optuna searches.

    `costs` is the range of a search for a front.

    Raises:
        SearchError: The file cannot be written.

    """
    if policy not in SAMPLERS:
        return nullcontext(lambda _: None)
    job.directory.mkdir(parents=True, exist_ok=True)
    score = AGREEMENT if job.inputs.splits.search.labels is None else TOP1
    cost = None if costs is None else costs.quantity
    return study_file(job.directory / STUDIES, policy, job.inputs.problem, score=score.label, cost=cost)


@contextmanager
def study_file(
    file: Path, name: str, problem: PruningProblem, *, score: str, cost: str | None
) -> Iterator[Callable[[Trial], None]]:
    """Make a study in `file`, beside those that are there, and lend what writes the trials of a search into it.

    Parameters are the ratios that were evaluated. Where `cost` is traded for score, it is the second value of a trial.
    Trials that were screened out are pruned ones, with their score on the first images.

    Args:
        file: SQLite; made if it is missing.
        name: Of the study.
        problem: What is searched.
        score: How the objective is called.
        cost: The quantity traded for it; None for a search of one objective.

    Raises:
        SearchError: The file cannot be written.

    """
    import optuna

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=_BUSY_S)

    with _speaking(file):  # any path, whatever it means in a URL
        storage: RDBStorage = optuna.storages.RDBStorage("sqlite:///studies", engine_kwargs={"creator": connect})
    try:
        directions: list[Direction] = ["maximize"] if cost is None else ["maximize", "minimize"]
        with _speaking(file):
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
            study.set_metric_names([score] if cost is None else [score, cost])

        def write(trial: Trial) -> None:
            with _speaking(file):
                study.add_trial(_frozen(problem, trial, cost))

        yield write
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _speaking(file: Path) -> Iterator[None]:
    """Keep Optuna quiet, and turn its errors of storing into ours."""
    import optuna

    try:
        with quiet_optuna():
            yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError) as error:
        raise SearchError(
            f"cannot write {file}: {str(error).splitlines()[0]}; make room, or give another folder"
        ) from error


def _frozen(problem: PruningProblem, trial: Trial, cost: str | None) -> "FrozenTrial":
    """Return a trial as Optuna keeps it."""
    from optuna.trial import TrialState, create_trial

    values = [trial.objective] if cost is None else [trial.objective, float(trial.cost[cost])]
    kept = dict(zip(problem.names, trial.kept, strict=True))
    return create_trial(
        state=TrialState.COMPLETE if trial.competes else TrialState.PRUNED,
        values=values if trial.competes else None,
        params=ratios_of(problem, trial.policy),
        distributions=dict(ratio_space(problem)),
        user_attrs={"trial": trial.number, "kept": kept, "cost": dict(trial.cost)},
        intermediate_values={} if trial.competes else {trial.scores.images: trial.objective},
    )
