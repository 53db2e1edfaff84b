"""Cheap scores first: who is screened, what it costs, and when it is given up."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.screening import Screener, Screening, ScreeningRecord, kendall_tau
from autoprune.search.searcher import InOrder, Proposal, Searcher, Trial
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem()
SCREENING = Screening(10, keep=0.25, audit=8)
IMAGES = FormulaEvaluator.search_images


class Mixed:
    """Proposes random policies, every third a probe; remembers what it was told."""

    name = "mixed"

    def __init__(self, probe_every: int = 3) -> None:
        self.told: list[Trial] = []
        self._generator = np.random.default_rng(0)
        self._asked = 0
        self._probe_every = probe_every
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        self._order.may_ask(n)
        proposals = []
        for _ in range(n):
            self._asked += 1
            policy = PruningPolicy.of(self._generator.uniform(0.3, 0.9, 3).tolist())
            proposals.append(Proposal(policy, probe=self._asked % self._probe_every == 0))
        return self._order.asked(proposals)

    def tell(self, trials: Sequence[Trial]) -> None:
        self._order.told(trials)
        self.told += trials


def search(
    searcher: Searcher | None = None,
    *,
    evaluations: int = 30,
    batch: int = 16,
    screening: Screening | None = SCREENING,
    noise: float = 0.0,
    journal: Journal | None = None,
    evaluator: FormulaEvaluator | None = None,
) -> SearchResult:
    searcher = searcher or make_searcher("random", PROBLEM, seed=2, evaluations=evaluations)
    with Journal("sqlite://") as fresh:
        return run_search(
            PROBLEM,
            evaluator or FormulaEvaluator(PROBLEM, [1, 3, 9], noise=noise),
            searcher,
            evaluations=evaluations,
            journal=fresh if journal is None else journal,
            batch=batch,
            screening=screening,
        )


def record(result: SearchResult) -> ScreeningRecord:
    assert result.screening is not None
    return result.screening


def test_after_the_audit_only_the_best_of_each_batch_are_scored_in_full() -> None:
    trials = search(noise=0.01).trials
    assert not any(trial.screened_out for trial in trials[:8])
    for start in range(8, len(trials) - 16, 16):
        batch = trials[start : start + 16]
        full = [trial for trial in batch if not trial.screened_out]
        assert len(full) == 4
        evaluator = FormulaEvaluator(PROBLEM, [1, 3, 9], noise=0.01)
        cheap = {t.number: evaluator.evaluate(PROBLEM.plan(t.policy), images=10).objective for t in batch}
        left_out = [cheap[trial.number] for trial in batch if trial.screened_out]
        assert min(cheap[trial.number] for trial in full) >= max(left_out)
    assert {(trial.screened_out, trial.scores.images) for trial in trials} == {(False, IMAGES), (True, 10)}


@pytest.mark.parametrize("noise", [0.0, 10.0])
@pytest.mark.parametrize("searcher", [None, Mixed])
@pytest.mark.parametrize("evaluations", [1, 9, 10, 21])
def test_what_is_spent_is_what_was_allowed(noise: float, searcher: type[Mixed] | None, evaluations: int) -> None:
    evaluator = FormulaEvaluator(PROBLEM, noise=noise)
    result = search(searcher() if searcher else None, evaluations=evaluations, evaluator=evaluator)
    cheap, full = record(result).screened_out + record(result).pairs, record(result).full
    assert evaluator.calls == cheap + full
    assert evaluator.images == cheap * 10 + full * IMAGES
    assert (evaluations - 1.1) * IMAGES < evaluator.images <= evaluations * IMAGES


def test_more_are_tried_and_the_best_is_no_worse() -> None:
    screened, plain = search(noise=0.005), search(screening=None)
    assert len(screened.trials) > 2 * len(plain.trials) == 60
    assert screened.trials[0].scores == plain.trials[0].scores
    assert screened.best.objective >= plain.best.objective
    assert plain.screening is None


def test_cheap_scores_never_win_and_are_told() -> None:
    class Flattering(FormulaEvaluator):
        def evaluate(self, plan: object, *, images: int | None = None) -> Scores:
            scores = super().evaluate(plan, images=images)  # type: ignore[arg-type]
            return Scores(scores.objective + (images is not None), None, scores.loss, None, None, scores.images)

    searcher = Mixed()
    result = search(searcher, evaluator=Flattering(PROBLEM))
    assert result.best.scores.images == IMAGES
    assert max(trial.objective for trial in result.trials) > 1 > result.best.objective
    assert searcher.told == list(result.trials[: len(searcher.told)])
    assert any(trial.screened_out for trial in searcher.told)


def test_probes_are_scored_in_full() -> None:
    result = search(Mixed())
    assert sum(trial.probe for trial in result.trials) > 5
    assert not any(trial.probe and trial.screened_out for trial in result.trials)
    assert not result.best.probe


def test_sensitivity_is_untouched() -> None:
    """All its trials are probes, but the last: nothing to choose from, and none to spare for a second look."""
    searchers = [make_searcher("sensitivity", PROBLEM, seed=0, evaluations=17) for _ in range(2)]
    plain = search(searchers[0], evaluations=17, screening=None)
    evaluations = len(plain.trials)
    screened = search(searchers[1], evaluations=evaluations, screening=Screening(10, audit=2))
    assert [t.policy for t in screened.trials] == [t.policy for t in plain.trials]
    assert screened.best.scores == plain.best.scores


def test_screening_that_misleads_turns_itself_off() -> None:
    result = search(noise=10.0)
    assert not any(trial.screened_out for trial in result.trials)
    assert record(result).turned_off is not None
    assert "on 10 images the 8 audited proposals rank otherwise" in record(result).turned_off
    assert record(result).pairs == 8
    assert len(result.trials) == 30 - 1  # 8 cheap scores were wasted


def test_screening_that_tells_nothing_turns_itself_off() -> None:
    class Blind(FormulaEvaluator):
        def evaluate(self, plan: object, *, images: int | None = None) -> Scores:
            return Scores(0.5, None, 1.0, None, None, images or IMAGES)

    result = search(evaluator=Blind(PROBLEM))
    assert record(result).kendall_tau is None
    assert record(result).turned_off == "the scores of the 8 audited proposals are all the same"


def test_the_record_counts() -> None:
    result = search(noise=0.01)
    found = record(result)
    assert found.images == 10
    assert found.screened_out + found.full == len(result.trials)
    assert found.pairs == found.full  # no probes
    assert found.audit_tau is not None
    assert found.kendall_tau is not None
    assert found.audit_tau > 0.5
    assert found.turned_off is None
    unfinished = record(search(evaluations=4))
    assert (unfinished.audit_tau, unfinished.kendall_tau, unfinished.pairs, unfinished.full) == (None, 1.0, 3, 3)


def test_searches_are_repeatable_and_answered_by_the_journal() -> None:
    with Journal("sqlite://") as journal:
        first, again = search(noise=0.01, journal=journal), search(noise=0.01, journal=journal)
        assert len(journal) == len(first.trials) + record(first).pairs
        search(screening=Screening(20, audit=8), noise=0.01, journal=journal)
        assert search(noise=0.01, journal=journal).trials == first.trials
    assert (first.cached, again.evaluated) == (0, 0)
    assert again.trials == first.trials
    assert again.screening == first.screening


def test_stopped_anywhere_it_goes_on_to_the_same_end() -> None:
    whole = search(noise=0.01, evaluations=15)
    for allowed in (0, 3, 12, 21, 33):
        answers = iter([False] * allowed + [True])
        with Journal("sqlite://") as journal:
            with pytest.raises(Cancelled, match=r"after \d+ of 15"):
                run_search(
                    PROBLEM,
                    FormulaEvaluator(PROBLEM, [1, 3, 9], noise=0.01),
                    make_searcher("random", PROBLEM, seed=2, evaluations=15),
                    evaluations=15,
                    journal=journal,
                    batch=16,
                    screening=SCREENING,
                    should_stop=lambda answers=answers: next(answers),  # type: ignore[misc]
                )
            resumed = search(noise=0.01, evaluations=15, journal=journal)
        assert resumed.trials == whole.trials
        assert resumed.screening == whole.screening


@pytest.mark.parametrize(
    ("screening", "batch", "message"),
    [
        (Screening(100), 16, "fewer than all 100 search images, found 100"),
        (Screening(0), 16, "at least 1"),
        (Screening(10, keep=1.0), 16, "between 0 and 1"),
        (Screening(10, audit=1), 16, "at least 2 proposals"),
        (Screening(10), 1, "saves nothing: of a batch of 1, 1 would be"),
        (Screening(80, keep=0.5), 16, "use larger batches, fewer images, or keep fewer"),
    ],
)
def test_screening_that_cannot_help_is_refused(screening: Screening, batch: int, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(screening=screening, batch=batch)


@settings(max_examples=200)
@given(
    st.integers(1, 99), st.floats(0.01, 0.99), st.integers(2, 20), st.integers(1, 64), st.integers(0, 3000),
    st.booleans(),
)  # fmt: skip
def test_what_is_asked_for_can_be_paid(
    images: int, keep: float, audit: int, batch: int, left: int, audited: bool
) -> None:
    screener = Screener(Screening(images, keep, audit, threshold=-1), IMAGES)
    for i in range(audit if audited else 0):
        screener.learn(scores(i / 100), scores(i / 100))
    assert screener.auditing != audited
    n = screener.affordable(batch, left)
    assert 0 <= n <= batch
    assert screener.cost(n) <= left
    assert n > 0 or left < IMAGES
    assert n == batch or screener.auditing or screener.cost(n + 1) > left


def scores(objective: float, regret: float = 0.0) -> Scores:
    return Scores(objective, None, regret, None, None, 10)


def test_kendall_tau_tells_ties_apart_by_regret() -> None:
    first = [scores(0.5, 1.0), scores(0.5, 0.9), scores(0.6, 2.0), scores(0.4)]
    assert kendall_tau(first, [scores(0.2), scores(0.3), scores(0.4), scores(0.1)]) == 1.0
    assert kendall_tau(first, [scores(0.3), scores(0.2), scores(0.1), scores(0.4)]) == -1.0
    swapped = kendall_tau(first, [scores(0.3), scores(0.2), scores(0.4), scores(0.1)])
    assert swapped is not None
    assert math.isclose(swapped, 4 / 6)  # 5 pairs alike, 1 not
    assert kendall_tau(first[:1], first[:1]) is None
    assert kendall_tau(first, [scores(0.5)] * 4) is None
