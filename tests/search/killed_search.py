"""One slow search in a process of its own: ``python -m tests.search.killed_search JOURNAL POLICY``."""

import sys
from pathlib import Path

import torch

from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from tests.search.small_problems import FormulaEvaluator, small_problem

EVALUATIONS = 30


def run(path: Path, policy: str, seconds: float = 0) -> SearchResult:
    """Search with evaluations that take `seconds` each."""
    problem = small_problem()
    searcher = make_searcher(policy, problem, seed=11, evaluations=EVALUATIONS)
    evaluator = FormulaEvaluator(problem, [1, 2, 3], seconds=seconds)
    with Journal.open(path) as journal:
        return run_search(problem, evaluator, searcher, evaluations=EVALUATIONS, journal=journal)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), sys.argv[2], seconds=0.2)
