"""The loop: what counts, who wins, what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import SearchError, UnknownNameError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import SearchResult, best_trial, run_search
from autoprune.search.evaluated import Evaluated
from autoprune.search.journal import Journal, plan_key
from autoprune.search.policies import POLICIES, make_searcher
from autoprune.search.searcher import Proposal, Trial
from tests.search.small_problems import FormulaEvaluator, real_evaluator, small_problem

PROBLEM = small_problem()


@dataclass
class Scripted:
    """Proposes what it was given, `n` at a time."""

    proposals: list[Proposal]
    told: list[Trial] = field(default_factory=list)
    name: str = "scripted"
    greedy: bool = False

    def ask(self, n: int) -> list[Proposal]:
        start = len(self.told)
        return self.proposals[start : start + n + self.greedy]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


def run(searcher: Scripted, *, evaluations: int = 10, batch: int = 1) -> SearchResult:
    with Journal("sqlite://") as journal:
        return run_search(
            PROBLEM, FormulaEvaluator(PROBLEM), searcher, evaluations=evaluations, journal=journal, batch=batch
        )


def proposals(*ratios: float, probe: bool = False) -> list[Proposal]:
    return [Proposal(PruningPolicy.uniform(ratio, 3), probe) for ratio in ratios]


def test_proposals_are_projected_and_probes_are_not() -> None:
    asked = [*proposals(0.1), *proposals(0.1, probe=True)]
    result = run(Scripted(asked))
    inside, probe = result.trials
    assert [trial.proposal for trial in result.trials] == asked
    assert PROBLEM.fits(inside.kept)
    assert inside.policy == PROBLEM.project(asked[0].policy)
    assert not PROBLEM.fits(probe.kept)
    assert probe.objective > inside.objective
    assert result.best == inside


def test_trials_count_whether_or_not_the_journal_knows_them() -> None:
    result = run(Scripted(proposals(0.5, 0.5, 0.6, 0.7)), evaluations=3)
    assert (len(result.trials), result.evaluated, result.cached) == (3, 2, 1)
    assert result.trials[0].scores == result.trials[1].scores
    assert result.best.number == 1


def test_trials_know_the_seconds_of_their_search_though_the_journal_answers() -> None:
    """Whoever evaluated it: a plan costs a search what it took then, and nothing when it is asked for again."""
    evaluator, ratios = FormulaEvaluator(PROBLEM), (0.5, 0.6, 0.5, 0.7)
    with Journal("sqlite://") as journal:
        for ratio, seconds in ((0.5, 1e6), (0.6, 2e6), (0.7, None)):
            plan = PROBLEM.plan(PROBLEM.project(PruningPolicy.uniform(ratio, 3)))
            journal.put(evaluator.settings_key, plan, Evaluated(evaluator.evaluate(plan), seconds))
        result = run_search(
            PROBLEM, evaluator, Scripted(proposals(*ratios)), evaluations=4, journal=journal, thought_s=1e5
        )
        assert result.asked == {(evaluator.settings_key, plan_key(PROBLEM.plan(t.policy))) for t in result.trials}
    assert (result.evaluated, len(result.asked)) == (0, 3)
    assert [trial.spent for trial in result.trials] == [1, 2, 3, 4]
    tenths = [None if trial.seconds is None else int(trial.seconds / 1e5) for trial in result.trials]
    assert tenths == [11, 31, 31, None]  # of a million, and what the searcher took itself


def test_a_batch_ends_where_the_evaluations_do() -> None:
    searcher = Scripted(proposals(0.5, 0.6, 0.7, 0.8, 0.85))
    assert len(run(searcher, evaluations=3, batch=2).trials) == 3
    assert [trial.number for trial in searcher.told] == [1, 2, 3]


def test_progress_is_reported_after_every_trial() -> None:
    seen: list[tuple[int, int, int]] = []
    with Journal("sqlite://") as journal:
        run_search(
            PROBLEM, FormulaEvaluator(PROBLEM), Scripted(proposals(0.5, 0.6, 0.7)), evaluations=9, journal=journal,
            batch=2, progress=lambda done, total, trial: seen.append((done, total, trial.number)),
        )  # fmt: skip
    assert seen == [(1, 9, 1), (2, 9, 2), (3, 9, 3)]


def trial(number: int, top1: float, loss: float, *, probe: bool = False) -> Trial:
    proposal = proposals(0.5, probe=probe)[0]
    return Trial(number, proposal, proposal.policy, (), {}, Scores(top1, None, loss, None, None, 10))


def test_best_is_the_objective_then_the_loss_then_the_earlier() -> None:
    trials = [trial(1, 0.5, 2), trial(2, 0.6, 3), trial(3, 0.6, 1), trial(4, 0.6, 1), trial(5, 0.9, 0, probe=True)]
    best = best_trial(trials)
    assert best is not None
    assert best.number == 3
    assert best_trial(trials[4:]) is None


def test_what_no_search_can_run_with_is_refused() -> None:
    with pytest.raises(SearchError, match="at least one evaluation"):
        run(Scripted([]), evaluations=0)
    with pytest.raises(SearchError, match="batch"):
        run(Scripted([]), batch=0)
    with pytest.raises(SearchError, match="nothing within budget in 2 trials"):
        run(Scripted(proposals(0.1, 0.2, probe=True)))
    with pytest.raises(SearchError, match="2 proposals, asked for at most 1"):
        run(Scripted(proposals(0.5, 0.6), greedy=True))
    with Journal("sqlite://") as journal, pytest.raises(SearchError, match="another network"):
        run_search(PROBLEM, FormulaEvaluator(small_problem()), Scripted(proposals(0.5)), evaluations=1, journal=journal)
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        make_searcher("unifrom", PROBLEM, seed=0, evaluations=9)
    with pytest.raises(SearchError, match="seed"):
        make_searcher("random", PROBLEM, seed=-1, evaluations=9)


def test_journal_answers_stand_even_where_evaluation_is_not_repeatable(tmp_path: Path) -> None:
    """Two processes on different machines may round differently: the first answer is everybody's."""

    class Drifting(FormulaEvaluator):
        def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
            scores = super().evaluate(plan, images=images)
            with Journal.open(path) as other:  # meanwhile, another process is faster
                other.put(self.settings_key, plan, Evaluated(Scores(0.25, None, 1.0, None, None, 10), 1.0))
            return scores

    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        result = run_search(PROBLEM, Drifting(PROBLEM), Scripted(proposals(0.5)), evaluations=1, journal=journal)
    assert result.best.objective == 0.25


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_real_networks_are_searched(name: str) -> None:
    evaluator = real_evaluator(PROBLEM)
    with Journal("sqlite://") as journal:
        for cached in (False, True):
            searcher = make_searcher(name, PROBLEM, seed=0, evaluations=8)
            result = run_search(PROBLEM, evaluator, searcher, evaluations=8, journal=journal)
            assert (result.evaluated == 0) == cached
            best = result.best
            assert best.scores == evaluator.evaluate(PROBLEM.plan(best.policy))
            assert np.isfinite(best.scores.regret)
