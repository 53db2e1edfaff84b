"""Answers to "what would this budget cost me?" as the command line and REST give them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from autoprune.search.evidence import Evidence
from autoprune.search.score_curve import LEVEL
from autoprune.search.what_if import Forecaster, Near, SearchGain, WhatIf

FORMAT = "autoprune-what-if/1"

#: What scores of answers are of, for people.
MEANING = (
    "Scores are of networks with their layers reconstructed, but with neither the refit nor the fine-tuning that a job "
    "ends with: what it delivers is usually better."
)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IncludesView(_View):
    """What was done to the networks that scores are of."""

    reconstruction: bool = Field(default=True, description="Layers behind pruned groups got the best weights.")
    refit: bool = Field(
        default=False, description="Not solved layer by layer at the end, by which a job's winner usually gains."
    )
    finetuning: bool = Field(default=False, description="Not trained, as a job with `finetune_epochs` does.")


class NearView(_View):
    """A candidate that was evaluated."""

    policy: str = Field(description="Who proposed it.", examples=["exact"])
    kept: dict[str, int] = Field(description="Units kept, by decision group.")
    cost: dict[str, int]
    error: float = Field(description="Its sum of reconstruction errors.")
    score: float


class BudgetView(_View):
    """What one budget would cost, before the refit and fine-tuning."""

    budget: str = Field(examples=["macs=40%"])
    limits: dict[str, int] = Field(
        description="Largest allowed cost; of latency in nanoseconds, less the table's error."
    )
    score: float = Field(description="What is expected on the search images.", examples=[0.716])
    low: float = Field(description="Lower end of the interval.", examples=[0.661])
    high: float = Field(description="Upper end of the interval.", examples=[0.765])
    measured: bool = Field(description="The allocation was evaluated: its score is known, the interval is a point.")
    extrapolated: bool = Field(description="Its error is above that of every trial: trust the interval less.")
    kept: dict[str, int] = Field(description="The allocation that is assumed: units kept, by decision group.")
    cost: dict[str, int] = Field(description="What it costs; latency is predicted, in nanoseconds.")
    error: float = Field(description="Its sum of reconstruction errors, the least within the budget.")
    within: NearView | None = Field(description="The best candidate evaluated so far that holds the budget.")
    nearest: NearView = Field(description="The candidate evaluated so far with the nearest error.")


class GainView(_View):
    """What the job's searches gained over the allocation without evaluations, at the job's own budget."""

    budget: str = Field(examples=["macs=50%"])
    allocation: float = Field(description="Score of the allocation with the least sum of errors.")
    allocation_measured: bool = Field(description="Whether that was evaluated; otherwise it is predicted.")
    policy: str = Field(description="Whose candidate was best.", examples=["exact"])
    best: float = Field(description="Its score.")
    gain: float = Field(description="The difference.")
    evaluations: int = Field(description="Candidates that competed.")


class WhatIfView(_View):
    """Answers from what one job has evaluated; no network is run."""

    format: str = FORMAT
    metric: str = Field(description="What a score is: top1, or agreement with the unpruned network.", examples=["top1"])
    images: int = Field(description="Search images that scores are of.")
    includes: IncludesView = Field(
        default=IncludesView(), description="What all scores here include, but that of the unpruned network."
    )
    unpruned: float = Field(description="Score of the unpruned network.")
    unpruned_cost: dict[str, int]
    level: float = Field(description="Probability with which intervals are meant to hold.", examples=[LEVEL])
    trials: int = Field(description="Different candidates that the answers rest on.")
    gain: GainView | None = Field(description="What searching gained; null where every candidate was trained first.")
    budgets: list[BudgetView]


def what_if(path: Path, budgets: Sequence[str]) -> WhatIfView:
    """Answer for each of `budgets` from the evidence in a file.

    Raises:
        SearchError: No evidence there, or none that other budgets can be answered from.
        BudgetError: A budget is malformed, held by the unpruned network, or of a cost that the job does not know.
        InfeasibleBudgetError: A budget is below the smallest reachable cost.

    """
    evidence = Evidence.load(path)
    forecaster = Forecaster(evidence)
    gain, costs = forecaster.gain(), evidence.problem.costs
    return WhatIfView(
        metric=evidence.metric,
        images=evidence.images,
        unpruned=evidence.unpruned,
        unpruned_cost=costs.cost(costs.full()),
        level=LEVEL,
        trials=forecaster.trials,
        gain=None if gain is None else _gain(gain),
        budgets=[_budget(evidence, forecaster.ask(budget)) for budget in budgets],
    )


def _budget(evidence: Evidence, answer: WhatIf) -> BudgetView:
    """Return one answer in its JSON form."""
    return BudgetView(
        budget=answer.budget,
        limits=dict(answer.limits),
        **asdict(answer.prediction),
        measured=answer.measured,
        kept=dict(zip(evidence.names, answer.kept, strict=True)),
        cost=dict(answer.cost),
        error=answer.error,
        within=None if answer.within is None else _near(evidence, answer.within),
        nearest=_near(evidence, answer.nearest),
    )


def _near(evidence: Evidence, near: Near) -> NearView:
    """Return a known candidate in its JSON form."""
    kept = dict(zip(evidence.names, near.kept, strict=True))
    return NearView(policy=near.policy, kept=kept, cost=dict(near.cost), error=near.error, score=near.score)


def _gain(gain: SearchGain) -> GainView:
    """Return the gain of searching in its JSON form."""
    allocation = gain.exact.prediction.score
    return GainView(
        budget=gain.exact.budget,
        allocation=allocation,
        allocation_measured=gain.exact.measured,
        policy=gain.policy,
        best=gain.best,
        gain=gain.best - allocation,
        evaluations=gain.evaluations,
    )
