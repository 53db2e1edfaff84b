"""A study of Optuna in memory, over one ratio per group: draws policies, and is told what they score.

Optuna is imported when it is first used: that takes a second.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from optuna.samplers import BaseSampler

Direction = Literal["maximize", "minimize"]


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging to the terminal, and from warning that a feature is experimental; errors are shown.

    Its versions are pinned and every sampler used here is tested, so that a changed interface is found there.
    """
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def ratio_space(problem: PruningProblem) -> "dict[str, FloatDistribution]":
    """Return the parameters of a study: a ratio, from 0 to the largest allowed, of every group that can be narrowed."""
    from optuna.distributions import FloatDistribution

    largest = 1 - problem.smallest() / problem.costs.full()
    pairs = zip(problem.names, largest.tolist(), strict=True)
    return {name: FloatDistribution(0.0, ratio) for name, ratio in pairs if ratio > 0}


def ratios_of(problem: PruningProblem, policy: PruningPolicy) -> dict[str, float]:
    """Return a policy as parameters of a study."""
    ratios, space = dict(zip(problem.names, policy.ratios, strict=True)), ratio_space(problem)
    return {name: min(ratios[name], space[name].high) for name in space}


@dataclass(frozen=True, slots=True)
class Draw:
    """What a sampler wants to know: its trial in the study, and the ratios, in or out of budget."""

    number: int
    policy: PruningPolicy


class RatioStudy:
    """One sampler with its study; deterministic in what it is asked and told, and in what order.

    Args:
        problem: Whose groups the ratios are of.
        sampler: Makes the sampler.
        directions: Which way each value is better.

    """

    def __init__(
        self, problem: PruningProblem, sampler: "Callable[[], BaseSampler]", directions: Sequence[Direction]
    ) -> None:
        self._problem = problem
        self._space = ratio_space(problem)
        with quiet_optuna():
            import optuna

            self._study = optuna.create_study(sampler=sampler(), directions=list(directions))

    def enqueue(self, policy: PruningPolicy) -> None:
        """Let the next draw be `policy`; what is enqueued comes first, in this order."""
        with quiet_optuna():
            self._study.enqueue_trial(ratios_of(self._problem, policy))

    def draw(self) -> Draw:
        """Return what the sampler wants to know next."""
        with quiet_optuna():
            trial = self._study.ask()
            _ = trial.relative_params  # draws, also where the ratios are enqueued: the sampler counts it as its own
            ratios = {name: trial.suggest_float(name, 0.0, each.high) for name, each in self._space.items()}
        return Draw(trial.number, PruningPolicy.of(ratios.get(name, 0.0) for name in self._problem.names))

    def tell(self, draw: Draw, values: Sequence[float] | None) -> None:
        """Say what a draw scored; None: nothing that compares, so that the sampler takes no notice of it."""
        from optuna.trial import TrialState

        with quiet_optuna():
            self._study.tell(draw.number, values, state=TrialState.FAIL if values is None else TrialState.COMPLETE)

    def add(self, policy: PruningPolicy, values: Sequence[float]) -> None:
        """Say what a policy scored that was not drawn like this."""
        from optuna.trial import create_trial

        with quiet_optuna():
            params = ratios_of(self._problem, policy)
            self._study.add_trial(create_trial(params=params, distributions=dict(self._space), values=list(values)))
