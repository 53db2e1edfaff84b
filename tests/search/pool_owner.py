"""A process with a pool: ``python -m tests.search.pool_owner FOLDER WORKERS SECONDS``.

Evaluates plans that take so long, each of which leaves a file in FOLDER with its worker's process id.
"""

import signal
import sys
import warnings
from pathlib import Path

from autoprune.pruning.policy import PruningPolicy
from autoprune.search.local_pool import local_pool
from tests.search.pool_evaluators import Tracing
from tests.search.small_problems import small_problem


def main(folder: Path, workers: int, seconds: float) -> None:
    warnings.simplefilter("error")
    problem = small_problem(measured=False)
    plans = [problem.plan(PruningPolicy.uniform(ratio, 3)) for ratio in (0.2, 0.4, 0.6, 0.8)]
    with local_pool(workers) as pool:
        list(pool.evaluate(Tracing(problem, folder, seconds=seconds), plans))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
