"""The search of one policy in a job, and what scores its candidates."""

import time
from collections.abc import Mapping

from torch import fx

from autoprune.costs.budget import Budget
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.latency_tables.measure import measure_side_by_side
from autoprune.recovery.tuned_evaluator import TunedEvaluator
from autoprune.search.answers import Answers
from autoprune.search.driver import run_search
from autoprune.search.exact import Exact
from autoprune.search.journal import Journal
from autoprune.search.netadapt import NetAdapt
from autoprune.search.pool import EvaluationPool
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from autoprune.service.pipeline.continuing import first_policies
from autoprune.service.pipeline.fronts import cost_range, with_whole_front
from autoprune.service.pipeline.job import Job
from autoprune.service.pipeline.job_files import CHECKPOINTS
from autoprune.service.pipeline.latency_check import (
    NOISE_IMAGES,
    LatencyCheck,
    latency_limit,
)
from autoprune.service.pipeline.live_log import live_log
from autoprune.service.pipeline.pruningnet_stage import Proxy, trained_proxy
from autoprune.service.pipeline.quantized import calibration_images
from autoprune.service.pipeline.searchers import Found, amc_left, job_searcher
from autoprune.service.pipeline.studies import search_log
from autoprune.service.results.wording import BASELINES
from autoprune.service.specs.amc_options import BATCH
from autoprune.service.specs.pruningnet_options import METAPRUNING


def search_policy(job: Job, policy: str, journal: Journal, pool: EvaluationPool, before: Mapping[str, Found]) -> Found:
    """Search with one policy; `before` is what the others found so far."""
    spec, problem = job.search_spec, job.inputs.problem
    costs = cost_range(spec, problem, policy)
    warm = spec.warm_start and policy not in (*BASELINES, Exact.name) and costs is None  # a front warms itself up
    proxy = _proxy(job, journal, pool) if policy == METAPRUNING else None
    evaluations = spec.evaluations - (proxy is not None)  # the last one is its winner's
    started = time.monotonic()
    first = [exact_policy(problem)] if warm else []
    first += first_policies(problem, policy, job.earlier)[: max(0, evaluations - 1 - warm)]
    own = job_searcher(
        spec, problem, policy, evaluations=evaluations - len(first), before=before, directory=job.directory
    )
    searcher = WarmStart(own, first) if first else own
    thought_s = time.monotonic() - started + (0 if proxy is None else proxy.seconds)
    with search_log(job, policy, costs) as log, live_log(job, policy) as tell:

        def progress(done: int, total: int, trial: Trial) -> None:
            log(trial)
            tell(trial)
            job.say("search", done, total, "candidates evaluated", policy)

        result = run_search(
            problem,
            _trainer(job, policy) or job.evaluator if proxy is None else proxy.evaluator,
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=BATCH,
            pool=pool,
            screening=None if spec.screening_images is None else Screening(spec.screening_images),
            thought_s=thought_s,
            progress=progress,
            should_stop=job.should_stop,
        )
    if proxy is not None:
        return proxy.found(result, Answers(job.evaluator, journal, pool, job.should_stop))
    left = amc_left(spec, own, result, before, job.directory, given=len(first))
    return Found(with_whole_front(result, costs), left)


def _proxy(job: Job, journal: Journal, pool: EvaluationPool) -> Proxy:
    """Return what policy metapruning scores its candidates with."""
    return trained_proxy(
        job.search_spec,
        job.inputs,
        job.evaluator,
        checkpoints=job.directory / CHECKPOINTS,
        journal=journal,
        pool=pool,
        report=job.progress,
        should_stop=job.should_stop,
    )


def _trainer(job: Job, policy: str) -> TunedEvaluator | None:
    """Return what scores the proposals of a policy that trains them; None for all others."""
    if policy != NetAdapt.name or job.spec.short_term_steps == 0:
        return None
    return TunedEvaluator(
        job.evaluator,
        job.inputs.splits.for_search(),
        steps=job.spec.short_term_steps,
        checkpoints=job.directory / CHECKPOINTS / policy,
    )


def is_trained(job: Job, policy: str) -> bool:
    """Tell whether a policy's proposals are trained: then equal plans may be different networks."""
    return _trainer(job, policy) is not None


def winner(job: Job, policy: str, best: Trial) -> fx.GraphModule:
    """Return the network of a trial as the search scored it."""
    problem, trainer = job.inputs.problem, _trainer(job, policy)
    plan = problem.plan(best.policy)
    if trainer is None:
        return job.evaluator.candidate(plan)
    return trainer.candidate(PathPlan.of(plan, [problem.plan(parent) for parent in best.proposal.parents]))


def latency_check(job: Job, journal: Journal, pool: EvaluationPool) -> LatencyCheck | None:
    """Return what times candidates whole; None where latency is not limited, or the device is out of reach."""
    table, limit = job.inputs.latencies, latency_limit(Budget.parse(job.spec.budget))
    if table is None or limit is None or not job.is_timed_on_device:
        return None
    answers = Answers(job.evaluator, journal, pool, job.should_stop)
    timer = job.timer or measure_side_by_side
    noise = calibration_images(job.inputs.splits, NOISE_IMAGES) if job.spec.int8 else None
    return LatencyCheck(limit, job.deployed_unpruned, answers, table.conditions.threads, timer, job.spec.opset, noise)
