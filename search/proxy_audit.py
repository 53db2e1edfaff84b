"""Whether a cheap evaluator ranks plans as a dear one does: an audit on plans that a search would compare."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.search.answers import Answers
from autoprune.search.journal import Journal
from autoprune.search.pool import EvaluationPool, ShouldStop
from autoprune.search.random_search import RandomSearch
from autoprune.search.screening import rank_correlation

#: Least Kendall tau for which a proxy can be trusted to rank, as for screening.
THRESHOLD = 0.5

#: Probability of such a tau among plans ranked by chance, above which it shows nothing.
SIGNIFICANCE = 0.05

#: Fewest plans with which a perfect ranking is significant: four give p = 0.08 at best.
FEWEST_PLANS = 5


@dataclass(frozen=True, slots=True)
class ProxyAudit:
    """How a proxy ranked plans.

    Attributes:
        plans: Number of plans.
        kendall_tau: Rank correlation (tau-b) of both scorings, equal objectives told apart by regret; None where a
            scoring tells none from another.
        p_value: Two-sided probability of a tau at least as large by chance; None with the tau.

    """

    plans: int
    kendall_tau: float | None
    p_value: float | None

    @property
    def failure(self) -> str | None:
        """Say why the proxy cannot be trusted to rank; None where it can."""
        if self.kendall_tau is None or self.p_value is None:
            return f"the scores of the {self.plans} audited plans are all the same"
        tau = f"over {self.plans} plans Kendall's tau is {self.kendall_tau:.2f}"
        if self.kendall_tau < THRESHOLD:
            return f"{tau}, below {THRESHOLD:g}"
        return f"{tau}, not significant (p = {self.p_value:.2f})" if self.p_value > SIGNIFICANCE else None


def audit_proxy(
    problem: PruningProblem,
    proxy: PlanEvaluator,
    truth: PlanEvaluator,
    *,
    plans: int,
    seed: int,
    journal: Journal,
    pool: EvaluationPool,
    progress: Callable[[int, int], None] = lambda *_: None,
    should_stop: ShouldStop = lambda: False,
) -> ProxyAudit:
    """Score random plans that use the budget up with both evaluators, and correlate the rankings.

    Args:
        problem: Whose budget the plans use up.
        proxy: The evaluator that is audited.
        truth: What it should rank like.
        plans: How many plans; fewer where the problem has no more.
        seed: Of the plans; the same ones for the same seed.
        journal: Answers and remembers both evaluators' scores.
        pool: Where they are computed.
        progress: Called after each plan that `truth` scored, with those done and all.
        should_stop: Asked before every plan.

    Raises:
        SearchError: Too few plans for any result to mean something.
        Cancelled: `should_stop` said so.

    """
    if plans < FEWEST_PLANS:
        raise SearchError(f"an audit needs at least {FEWEST_PLANS} plans, found {plans}")
    sampled = [problem.plan(proposal.policy) for proposal in RandomSearch(problem, seed).ask(plans)]

    def scored(evaluator: PlanEvaluator, told: Callable[[int, int], None]) -> list[Scores]:
        return _scored(Answers(evaluator, journal, pool, should_stop), sampled, told)

    found = rank_correlation(scored(proxy, lambda *_: None), scored(truth, progress))
    return ProxyAudit(len(sampled), *(found or (None, None)))


def _scored(answers: Answers, plans: Sequence[Plan], told: Callable[[int, int], None]) -> list[Scores]:
    """Return the scores of `plans`, in order."""
    scores: list[Scores] = []
    with closing(answers.of(plans)) as arriving:
        for _ in plans:
            if answers.should_stop():
                raise Cancelled("the audit was stopped; its scores are in the journal, run it again to go on")
            scores.append(next(arriving).scores)
            told(len(scores), len(plans))
    return scores
