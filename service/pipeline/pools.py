"""Where the candidates of a job are evaluated: in this process, in several, or on a cluster."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.search.pool import EvaluationPool, SerialPool
from autoprune.service.pipeline.job import Job
from autoprune.service.specs.amc_options import BATCH

#: Multiply-accumulates of all evaluations (a minute or so) beyond which worker processes repay their start.
LONG_SEARCH_MACS = 2e12

_log = logging.getLogger(__name__)


@contextmanager
def pool_for(job: Job, *, searches: int) -> Iterator[EvaluationPool]:
    """Lend what evaluates the candidates of so many searches.

    That is a cluster where the job has one, whatever its number of workers; else as many processes as it asks for, of
    which one is this process; if it does not say, one per core where the search is long.
    """
    threads = job.spec.threads
    workers = job.spec.workers or _worth_starting(job, searches)
    if job.cluster is not None:
        from autoprune.search.cluster_pool import cluster_pool  # may import Dask

        def notice(text: str) -> None:
            _log.info("%s", text)
            job.say("cluster", 0, 0, text)

        notice(f"evaluating on {job.cluster.url}")
        with cluster_pool(job.cluster, threads=threads, notice=notice) as cluster:
            yield cluster
    elif workers == 1:
        yield SerialPool(threads=threads)
    else:
        from autoprune.search.local_pool import local_pool  # may import Dask

        job.say("load", 0, 0, f"starting {workers} worker processes")
        with local_pool(workers, threads=threads) as local:
            yield local


def _worth_starting(job: Job, searches: int) -> int:
    """Return one worker per core where the searches will take minutes, else 1."""
    problem, spec = job.inputs.problem, job.spec
    images = job.evaluator.search_images + RECALIBRATION_IMAGES
    macs = problem.cost(problem.costs.full())["macs"] * images * spec.evaluations * searches
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(BATCH, cores // spec.threads)) if macs > LONG_SEARCH_MACS else 1
