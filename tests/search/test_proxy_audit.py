"""The audit of a proxy: it tells one that ranks from one that does not."""

import pytest

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.plan import Plan
from autoprune.search.journal import Journal
from autoprune.search.pool import SerialPool
from autoprune.search.proxy_audit import ProxyAudit, audit_proxy
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem()


class Flat(FormulaEvaluator):
    """Finds every plan as good as the next."""

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        return Scores(0.5, None, 1.0, None, None, 100)


def audit(proxy: FormulaEvaluator, truth: FormulaEvaluator, *, plans: int = 12) -> ProxyAudit:
    with Journal("sqlite://") as journal:
        return audit_proxy(PROBLEM, proxy, truth, plans=plans, seed=0, journal=journal, pool=SerialPool())


def test_a_proxy_that_ranks_alike_is_trusted() -> None:
    found = audit(FormulaEvaluator(PROBLEM, [1, 3, 9]), FormulaEvaluator(PROBLEM, [1.1, 3, 9]))
    assert found.plans == 12
    assert found.kendall_tau is not None
    assert found.kendall_tau > 0.8
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.failure is None


def test_one_that_does_not_is_not() -> None:
    found = audit(FormulaEvaluator(PROBLEM, [9, 1, 0]), FormulaEvaluator(PROBLEM, [0, 1, 9]))
    assert found.failure is not None
    assert "over 12 plans Kendall's tau is -" in found.failure
    assert found.failure.endswith("below 0.5")
    assert ProxyAudit(5, 0.6, 0.23).failure == "over 5 plans Kendall's tau is 0.60, not significant (p = 0.23)"
    assert ProxyAudit(20, 0.6, 0.0001).failure is None


def test_scores_that_are_all_the_same_rank_nothing() -> None:
    found = audit(Flat(PROBLEM), FormulaEvaluator(PROBLEM))
    assert (found.kendall_tau, found.p_value) == (None, None)
    assert found.failure == "the scores of the 12 audited plans are all the same"


def test_too_few_plans_are_refused() -> None:
    with pytest.raises(SearchError, match="at least 5 plans, found 4"):
        audit(FormulaEvaluator(PROBLEM), FormulaEvaluator(PROBLEM), plans=4)


def test_it_can_be_stopped_and_goes_on() -> None:
    proxy, truth = FormulaEvaluator(PROBLEM, [1, 3, 9]), FormulaEvaluator(PROBLEM)
    told: list[tuple[int, int]] = []
    stops = [False] * 15 + [True]
    with Journal("sqlite://") as journal:

        def run(answers: list[bool]) -> ProxyAudit:
            return audit_proxy(
                PROBLEM,
                proxy,
                truth,
                plans=12,
                seed=0,
                journal=journal,
                pool=SerialPool(),
                progress=lambda done, total: told.append((done, total)),
                should_stop=lambda: answers.pop(0) if answers else False,
            )

        with pytest.raises(Cancelled, match="in the journal"):
            run(stops)
        assert told == [(1, 12), (2, 12), (3, 12)]
        found = run([])
    assert (proxy.calls, truth.calls) == (12, 12)
    assert found == audit(FormulaEvaluator(PROBLEM, [1, 3, 9]), FormulaEvaluator(PROBLEM))
