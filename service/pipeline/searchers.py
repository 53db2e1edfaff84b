"""The searcher of each policy, as a job's settings make it; and what an amc search leaves besides its trials."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruningnet.settings import PruningNetSettings, distilled, from_scratch
from autoprune.pruningnet.training import check_memory
from autoprune.search.amc.settings import NO_TENSORBOARD, AmcSettings
from autoprune.search.driver import SearchResult
from autoprune.search.front import FrontSearch
from autoprune.search.netadapt import NetAdapt
from autoprune.search.policies import make_searcher
from autoprune.search.samplers import SAMPLERS
from autoprune.search.searcher import Searcher, Trial
from autoprune.search.sensitivity import Sensitivity
from autoprune.service.pipeline.fronts import cost_range
from autoprune.service.results.job_result import AmcView, PruningNetView
from autoprune.service.specs.amc_options import AGENT_ARTIFACT, LOG_FOLDER
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.pruningnet_options import METAPRUNING

AMC = "amc"


@runtime_checkable
class Learner(Protocol):
    """A searcher that trains an agent: :class:`autoprune.search.amc.searcher.Amc`, which takes seconds to import."""

    @property
    def warmup(self) -> int:
        """Episodes before the agent is asked."""
        ...

    @property
    def stopped_below(self) -> float | None:
        """Why it ended before its evaluations were spent."""
        ...

    def save_agent(self, path: Path) -> None:
        """Write the agent as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What one policy's search ended with.

    Attributes:
        result: What it found.
        amc: How it went, for policy amc; None for all others.
        pruningnet: What it went by, for policy metapruning; None for all others.

    """

    result: SearchResult
    amc: AmcView | None = None
    pruningnet: PruningNetView | None = None


def check_searchers(spec: JobSpec, problem: PruningProblem, directory: Path) -> None:
    """Refuse now what would only be found out once the policies before have searched; `directory` is the job's.

    Afterwards the libraries of agent and samplers are there, so that importing them is not counted as time of a search.

    Raises:
        SearchError: As of :func:`check_policies`; or the agent to go on with cannot be used, or would be overwritten:
            the job, run again, would begin with another one.

    """
    check_policies(spec, problem)
    for policy in SAMPLERS:
        if policy in spec.policies:
            job_searcher(spec, problem, policy, evaluations=1, before={}, directory=directory)
    if AMC not in spec.policies:
        return
    agent = spec.amc.agent
    if agent is not None and Path(agent).resolve() == (directory / AGENT_ARTIFACT).resolve():
        raise SearchError(
            f"the agent {agent} lies where this job leaves its own; choose another output folder, or copy it"
        )
    _amc(spec, problem, 1, ())


def check_policies(spec: JobSpec, problem: PruningProblem) -> None:
    """Refuse what needs neither images nor the libraries of the policies to be refused.

    Raises:
        SearchError: Too few evaluations for a policy, no memory for a PruningNet, a front without a range, or
            TensorBoard is missing.

    """
    own = spec.evaluations - spec.warm_start
    if Sensitivity.name in spec.policies:
        try:
            Sensitivity(problem, own)
        except SearchError as error:
            raise SearchError(f"{error} (it is in every comparison, and in searches that name no policy)") from error
    if NetAdapt.name in spec.policies:
        NetAdapt(problem, own, rule=spec.netadapt_rule)
    if METAPRUNING in spec.policies:
        if own < 2:
            raise SearchError(
                f"policy 'metapruning' needs at least {2 + spec.warm_start} evaluations, the last one for its winner; "
                f"found {spec.evaluations}; allow more"
            )
        check_memory(problem, pruningnet_settings(spec))
    for policy in spec.policies:
        cost_range(spec, problem, policy)
    _check_log(spec)


def pruningnet_settings(spec: JobSpec) -> PruningNetSettings:
    """Return how a job's PruningNet is trained; images are augmented as in fine-tuning."""
    make = from_scratch if spec.pruningnet.from_scratch else distilled
    options = spec.finetune
    return make(epochs=spec.pruningnet.epochs, seed=spec.seed, augment=options.augment, flip=options.flip)


def _check_log(spec: JobSpec) -> None:
    """Refuse a log for TensorBoard where that is not installed.

    Raises:
        SearchError: It is not.

    """
    if AMC in spec.policies and spec.amc.tensorboard and find_spec("tensorboard") is None:
        raise SearchError(NO_TENSORBOARD)


def job_searcher(
    spec: JobSpec,
    problem: PruningProblem,
    policy: str,
    *,
    evaluations: int,
    before: Mapping[str, Found],
    directory: Path,
) -> Searcher:
    """Return a fresh searcher for one policy of a job.

    Args:
        spec: The job.
        problem: What is pruned.
        policy: Name of the policy.
        evaluations: What the searcher itself may spend.
        before: What the policies before this one found, in their order: the experience of amc if it may have some.
        directory: Folder of the job; a log of an earlier attempt there is removed, since this one writes it whole.

    Raises:
        AutopruneError: The policy cannot search like this.

    """
    if policy == NetAdapt.name:
        return NetAdapt(problem, evaluations, rule=spec.netadapt_rule)
    costs = cost_range(spec, problem, policy)
    if costs is not None:
        return FrontSearch(problem, spec.seed, evaluations, costs, warm=spec.warm_start)
    if policy != AMC:
        return make_searcher(policy, problem, seed=spec.seed, evaluations=evaluations)
    log = directory / LOG_FOLDER
    shutil.rmtree(log, ignore_errors=True)
    return _amc(spec, problem, evaluations, experience(spec, before), log if spec.amc.tensorboard else None)


def experience(spec: JobSpec, before: Mapping[str, Found]) -> list[Trial]:
    """Return the trials that amc learns from first: those scored as its own will be, on all images and untrained."""
    if not spec.amc.experience:
        return []
    trained = NetAdapt.name if spec.short_term_steps > 0 else None
    return [
        trial
        for policy, found in before.items()
        if policy != trained
        for trial in found.result.trials
        if trial.competes
    ]


def amc_left(
    spec: JobSpec,
    searcher: Searcher,
    result: SearchResult,
    before: Mapping[str, Found],
    directory: Path,
    *,
    given: int,
) -> AmcView | None:
    """Save the agent that `searcher` trained, and say how its search went; None where it trains none.

    The first `given` trials were not its own.
    """
    if not isinstance(searcher, Learner):
        return None
    file = directory / AGENT_ARTIFACT
    file.parent.mkdir(parents=True, exist_ok=True)
    searcher.save_agent(file)
    first = given + 1
    return AmcView(
        reward=spec.amc.reward,
        first=first,
        episodes=len(result.trials) - first + 1,
        allowed=spec.evaluations - first + 1,
        warmup=searcher.warmup,
        experience=len(experience(spec, before)),
        agent=spec.amc.agent,
        stopped_below=searcher.stopped_below,
    )


def _amc(
    spec: JobSpec, problem: PruningProblem, evaluations: int, trials: Sequence[Trial], log: Path | None = None
) -> Searcher:
    """Make policy amc."""
    from autoprune.search.amc.searcher import Amc  # imports Stable-Baselines3

    options = spec.amc
    settings = AmcSettings(**options.model_dump(exclude={"experience", "agent", "tensorboard"}))
    agent = None if options.agent is None else Path(options.agent)
    return Amc(problem, spec.seed, evaluations, settings, agent=agent, experience=trials, log=log)
