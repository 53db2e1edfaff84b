"""A process that is told to stop, with all its group: ``python -m tests.search.pool_stops FOLDER WORKERS``.

Evaluates with one pool, again and again, until each of the signals came in mid-evaluation and while an evaluator was on
its way; prints what came of it and in how many seconds. Last of all it takes Ctrl-C as scripts do.
"""

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from autoprune.errors import AutopruneError
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.local_pool import local_pool
from autoprune.search.pool import EvaluationPool
from tests.search.pool_evaluators import SlowToArrive, Tracing
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem(measured=False)
PLANS = [PROBLEM.plan(PruningPolicy.uniform(ratio, 3)) for ratio in (0.2, 0.4, 0.6, 0.8)]


def main(folder: Path, workers: int) -> None:
    warnings.simplefilter("error")
    with local_pool(workers) as pool:
        for kind in (Tracing, SlowToArrive):
            for number in (signal.SIGTERM, signal.SIGINT):
                error, after_s = stopped(pool, kind, number, folder)
                sys.stdout.write(f"{kind.__name__} {number.name} {error} {after_s}\n")
        sys.stdout.flush()
        assert len(list(pool.evaluate(FormulaEvaluator(PROBLEM), PLANS))) == len(PLANS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        list(pool.evaluate(Tracing(PROBLEM, folder, seconds=300), PLANS))


def stopped(pool: EvaluationPool, kind: type[Tracing], number: signal.Signals, folder: Path) -> tuple[str, float]:
    """Signal the group once a worker is busy; return the error this ends in, and how many seconds later."""
    phase = folder / f"{kind.__name__} {number.name}"
    phase.mkdir()
    told = threading.Event()
    signal.signal(number, lambda *_: told.set())
    sent_s = []

    def should_stop() -> bool:
        if not sent_s and any(phase.iterdir()):
            sent_s.append(time.monotonic())
            os.killpg(0, number)
            time.sleep(0.2)  # all the time a worker needs to die of it
        return told.is_set()

    try:
        list(pool.evaluate(kind(PROBLEM, phase, seconds=1), PLANS, should_stop=should_stop))
    except AutopruneError as error:
        return type(error).__name__, round(time.monotonic() - sent_s[0], 1)
    return "nothing", 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
