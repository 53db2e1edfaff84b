"""What a budget would cost, from what a job knows: no network is run, no image is read.

The allocation with the least sum of reconstruction errors is known for every budget
(:mod:`autoprune.search.allocation`); its score is read off a curve through the trials, over that sum
(:mod:`autoprune.search.score_curve`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.costs.budget import Budget, holds
from autoprune.costs.quantities import LATENCY
from autoprune.errors import BudgetError, SearchError
from autoprune.pruning.width_problem import WidthProblem, absolute_limits
from autoprune.search.allocation import Allocation
from autoprune.search.evidence import Evidence, KnownTrial
from autoprune.search.score_curve import POWER, Prediction, ScoreCurve


@dataclass(frozen=True, slots=True)
class Near:
    """A trial close to what was asked: its score was measured.

    Attributes:
        policy: Who proposed it.
        kept: Units kept per decision group, ``(n_groups,)``.
        cost: What it costs.
        error: Its sum of reconstruction errors.
        score: Its score.

    """

    policy: str
    kept: tuple[int, ...]
    cost: Mapping[str, int]
    error: float
    score: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one budget would cost.

    Attributes:
        budget: The budget.
        limits: Its absolute limits; of latency, less the error of the table.
        kept: The allocation with the least sum of errors, ``(n_groups,)``.
        cost: What it costs.
        error: Its sum of reconstruction errors.
        prediction: Its score; where it was evaluated before, that score without an interval.
        measured: Whether it was evaluated before.
        within: The best trial that holds the budget; None if none does.
        nearest: The trial whose error is nearest.

    """

    budget: str
    limits: Mapping[str, int]
    kept: tuple[int, ...]
    cost: Mapping[str, int]
    error: float
    prediction: Prediction
    measured: bool
    within: Near | None
    nearest: Near


@dataclass(frozen=True, slots=True)
class SearchGain:
    """What the job's own searches gained over the allocation without an evaluation, at the job's own budget.

    Attributes:
        exact: The allocation with the least sum of errors.
        policy: Whose trial was best.
        best: Its score.
        evaluations: Trials that competed.

    """

    exact: WhatIf
    policy: str
    best: float
    evaluations: int


class Forecaster:
    """Answers for any budget from the evidence of one job; the same answers whenever asked."""

    def __init__(self, evidence: Evidence) -> None:
        """Fit the curve.

        Raises:
            SearchError: The job did not measure reconstruction errors, or has no trial that was pruned.

        """
        errors = evidence.problem.errors
        if errors is None:
            raise SearchError(
                "the job did not reconstruct, so it does not know the error of every width, by which other budgets "
                "are answered; search again with reconstruction"
            )
        self._evidence, self._errors = evidence, errors
        trials = {trial.kept: trial for trial in evidence.trials if not trial.trained}
        self._trials = [(trial, self._error(trial.kept)) for trial in trials.values()]
        pruned = [(error, trial.objective) for trial, error in self._trials if error > 0]
        table = np.array(pruned, dtype=np.float64).reshape(-1, 2)
        self.curve = ScoreCurve.fit(
            table[:, 0], table[:, 1], top=evidence.unpruned, images=evidence.images, power=POWER[evidence.metric]
        )

    @property
    def trials(self) -> int:
        """Different trials that answers rest on."""
        return len(self._trials)

    def ask(self, budget: str) -> WhatIf:
        """Say what a budget, such as ``macs=40%``, would cost.

        Raises:
            BudgetError: It is malformed, held by the unpruned network, or of a cost that the job does not know.
            InfeasibleBudgetError: It is below the smallest reachable cost.

        """
        parsed, problem = Budget.parse(budget), self._evidence.problem
        if problem.costs.latency is None and any(limit.quantity == LATENCY for limit in parsed.limits):
            raise BudgetError(
                f"budget {parsed}: the job had no latency table, so it knows no latency; search with a device first"
            )
        within = replace(problem, limits=absolute_limits(parsed, problem.costs, problem.widths))
        return self._answer(budget, within, Allocation(within).kept(self._errors).tolist())

    def gain(self) -> SearchGain | None:
        """Say what the job's searches gained at its own budget; None where each of its trials was trained first."""
        own = [trial for trial in self._evidence.trials if trial.own and not trial.probe and not trial.trained]
        if not own:
            return None
        best = min(own, key=lambda trial: (-trial.objective, trial.regret))
        assert self._evidence.allocation is not None, "where there are errors there is an allocation"
        exact = self._answer(self._evidence.budget, self._evidence.problem, self._evidence.allocation)
        return SearchGain(exact, best.policy, best.objective, len(own))

    def _answer(self, budget: str, problem: WidthProblem, allocation: Sequence[int]) -> WhatIf:
        """Say what is known of the allocation within the limits of `problem`."""
        kept, error = tuple(allocation), self._error(allocation)
        known = next((trial for trial, _ in self._trials if trial.kept == kept), None)
        prediction = self.curve.at(error)
        if known is not None:
            prediction = Prediction(known.objective, known.objective, known.objective, extrapolated=False)
        inside = [pair for pair in self._trials if holds(problem.cost(pair[0].kept), problem.limits)]
        within = min(inside, key=lambda pair: (-pair[0].objective, pair[0].regret), default=None)
        nearest = min(self._trials, key=lambda pair: abs(pair[1] - error))
        return WhatIf(
            budget,
            problem.limits,
            kept,
            problem.cost(kept),
            error,
            prediction,
            known is not None,
            None if within is None else self._near(*within),
            self._near(*nearest),
        )

    def _near(self, trial: KnownTrial, error: float) -> Near:
        """Return a trial as it is shown."""
        return Near(trial.policy, trial.kept, self._evidence.problem.cost(trial.kept), error, trial.objective)

    def _error(self, kept: Sequence[int]) -> float:
        """Return the sum of reconstruction errors of kept counts, ``(n_groups,)``."""
        return float(
            sum(
                errors[np.searchsorted(widths, count)]
                for errors, widths, count in zip(self._errors, self._evidence.problem.widths, kept, strict=True)
            )
        )
