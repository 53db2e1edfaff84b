"""NetAdapt with short-term training in a process of its own: ``python -m tests.search.killed_netadapt FOLDER``."""

import sys
from pathlib import Path

import torch

from autoprune.evaluation.evaluator import Evaluator
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.netadapt import NetAdapt
from autoprune.search.pool import EvaluationPool
from tests.search.small_problems import real_splits, small_problem

EVALUATIONS = 20
SETTINGS = FinetuneSettings(learning_rate=0.05, batch_size=16)


def tuned_evaluator(folder: Path, *, steps: int = 3) -> TunedEvaluator:
    """Train on random images with random labels."""
    problem, splits = small_problem(), real_splits()
    evaluator = Evaluator(problem, splits)
    return TunedEvaluator(evaluator, splits, steps=steps, checkpoints=folder / "checkpoints", settings=SETTINGS)


def run(folder: Path, *, pool: EvaluationPool | None = None, batch: int = 2) -> SearchResult:
    """Search with a journal and checkpoints in `folder`."""
    folder.mkdir(exist_ok=True)
    evaluator = tuned_evaluator(folder)
    searcher = NetAdapt(evaluator.problem, EVALUATIONS)
    with Journal.open(folder / "journal.sqlite") as journal:
        return run_search(
            evaluator.problem, evaluator, searcher, evaluations=EVALUATIONS, journal=journal, batch=batch, pool=pool
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
