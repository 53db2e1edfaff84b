"""One slow search in a process of its own: ``python -m tests.search.killed_search JOURNAL POLICY [WORKERS]``."""

import sys
from pathlib import Path

import torch

from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.local_pool import local_pool
from autoprune.search.policies import make_searcher
from autoprune.search.pool import EvaluationPool
from autoprune.search.screening import Screening
from tests.search.small_problems import FormulaEvaluator, small_problem

EVALUATIONS = 30
SCREENING = Screening(10, keep=0.25, audit=6)


def run(
    path: Path,
    policy: str,
    seconds: float = 0,
    *,
    pool: EvaluationPool | None = None,
    screening: Screening | None = None,
) -> SearchResult:
    """Search with evaluations that take `seconds` each."""
    problem = small_problem()
    searcher = make_searcher(policy, problem, seed=11, evaluations=EVALUATIONS)
    evaluator = FormulaEvaluator(problem, [1, 2, 3], seconds=seconds, noise=0.02)
    with Journal.open(path) as journal:
        return run_search(
            problem,
            evaluator,
            searcher,
            evaluations=EVALUATIONS,
            journal=journal,
            batch=8,
            pool=pool,
            screening=screening,
        )


def main(path: Path, policy: str, workers: int) -> None:
    torch.set_num_threads(1)
    if workers == 0:
        run(path, policy, seconds=0.2)
        return
    with local_pool(workers) as pool:
        run(path, policy, seconds=0.2, pool=pool, screening=SCREENING)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int((*sys.argv, "0")[3]))
