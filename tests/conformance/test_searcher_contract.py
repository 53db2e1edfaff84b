"""What every registered policy must do; see the contract of :class:`autoprune.search.searcher.Searcher`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest

from autoprune.errors import Cancelled, SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import POLICIES, WITHOUT_SEED, make_searcher
from autoprune.search.searcher import Proposal, Trial
from tests.search.small_problems import FormulaEvaluator, small_problem

EVALUATIONS = 40

#: Evaluations of policies that think for long before each proposal; enough for them to have learned from some.
FEWER = {"gp": 18}

#: Policies that do not promise the same result for every batch size.
DEPENDS_ON_BATCH: frozenset[str] = frozenset()

#: Policies that may leave a little of the budget: uniform does not widen a group beyond the common ratio, and what an
#: agent decides is evaluated as it is.
LEAVE_SOME = frozenset({"uniform", "amc"})

PROBLEMS = {
    "macs": small_problem("macs=50%"),
    "two limits": small_problem("macs=60%,params=40%"),
    "multiples of 8": small_problem("macs=50%", round_to=8),
    "nearly nothing allowed": small_problem("params=12%", round_to=4),
}

pytestmark = pytest.mark.parametrize("name", sorted(POLICIES))
on_every_problem = pytest.mark.parametrize("kind", PROBLEMS)


def search(
    name: str,
    problem: PruningProblem,
    journal: Journal | None = None,
    *,
    batch: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
    seed: int = 3,
) -> SearchResult:
    """Run a search with a journal in memory unless one is given."""
    evaluations = FEWER.get(name, EVALUATIONS)
    searcher = make_searcher(name, problem, seed=seed, evaluations=evaluations)
    with Journal("sqlite://") as fresh:
        return run_search(
            problem,
            FormulaEvaluator(problem, [1, 3, 9]),
            searcher,
            evaluations=evaluations,
            journal=fresh if journal is None else journal,
            batch=batch,
            should_stop=should_stop,
        )


@cache
def whole(name: str, kind: str = "macs") -> SearchResult:
    """Run a search that nothing disturbs, once for all that look at it or compare others with it."""
    return search(name, PROBLEMS[kind])


def tried(problem: PruningProblem, proposals: list[Proposal]) -> list[Trial]:
    """Make the trials of proposals without a driver."""
    evaluator = FormulaEvaluator(problem)
    return [
        Trial(i, p, p.policy, (), {}, evaluator.evaluate(problem.plan(p.policy))) for i, p in enumerate(proposals, 1)
    ]


@on_every_problem
def test_the_budget_is_never_exceeded_except_by_probes(name: str, kind: str) -> None:
    problem, result = PROBLEMS[kind], whole(name, kind)
    assert 1 <= len(result.trials) <= EVALUATIONS
    assert [trial.number for trial in result.trials] == list(range(1, len(result.trials) + 1))
    for trial in result.trials:
        assert trial.cost == problem.cost(trial.kept)
        assert trial.policy == problem.policy(trial.kept)
        assert all(count in width for count, width in zip(trial.kept, problem.widths, strict=True))
        assert trial.probe or problem.fits(trial.kept)
    assert not result.best.probe
    assert result.best.objective == max(t.objective for t in result.trials if not t.probe)


@on_every_problem
def test_the_budget_is_used_up(name: str, kind: str) -> None:
    """The last candidates of most policies are filled: no group can be widened."""
    problem, best = PROBLEMS[kind], whole(name, kind).best
    for index, width in enumerate(problem.widths):
        wider = [count for count in width.tolist() if count > best.kept[index]]
        if wider and name not in LEAVE_SOME:
            assert not problem.fits([*best.kept[:index], wider[0], *best.kept[index + 1 :]])


@on_every_problem
def test_the_seed_determines_everything(name: str, kind: str) -> None:
    first, second = whole(name, kind), search(name, PROBLEMS[kind])
    assert first.trials == second.trials
    assert first.best == second.best


@pytest.mark.parametrize("batch", [2, 7, 1000])
def test_the_batch_size_does_not_matter(name: str, batch: int) -> None:
    if name in DEPENDS_ON_BATCH:
        pytest.skip("does not promise it")
    assert search(name, PROBLEMS["macs"], batch=batch).trials == whole(name).trials


def test_a_stopped_search_goes_on_as_if_never_stopped(name: str) -> None:
    problem = PROBLEMS["macs"]
    expected = whole(name)
    for allowed in range(0, len(expected.trials), max(1, len(expected.trials) // 4)):
        answers = iter([False] * allowed + [True])
        with Journal("sqlite://") as journal:
            with pytest.raises(Cancelled, match=f"after {allowed} of"):
                search(name, problem, journal, should_stop=lambda answers=answers: next(answers))
            resumed = search(name, problem, journal)
        assert resumed.trials == expected.trials
        assert resumed.best == expected.best
        assert resumed.cached >= allowed


@pytest.fixture(scope="module")
def full_journal() -> Iterator[Journal]:
    """Lend a journal that every policy has filled."""
    with Journal("sqlite://") as journal:
        for name in POLICIES:
            search(name, PROBLEMS["macs"], journal)
        yield journal


def test_a_full_journal_changes_nothing(name: str, full_journal: Journal) -> None:
    again = search(name, PROBLEMS["macs"], full_journal)
    assert again.evaluated == 0
    assert again.trials == whole(name).trials


def test_tell_out_of_turn_is_refused_and_changes_nothing(name: str) -> None:
    problem = PROBLEMS["macs"]
    searcher = make_searcher(name, problem, seed=3, evaluations=EVALUATIONS)
    stranger = tried(problem, [Proposal(PruningPolicy.uniform(0.125, 3))])
    with pytest.raises(SearchError, match="at least 1"):
        searcher.ask(0)
    with pytest.raises(SearchError, match="do not match"):
        searcher.tell(stranger)
    proposals = searcher.ask(2)
    trials = tried(problem, proposals)
    wrong = [[], trials[:-1], [*trials, *stranger], stranger * len(trials)]
    if len(trials) > 1:
        wrong.append(trials[::-1])
    wrong.append([replace(t, proposal=replace(t.proposal, probe=not t.probe)) for t in trials])
    for told in wrong:
        with pytest.raises(SearchError, match="do not match"):
            searcher.tell(told)
    with pytest.raises(SearchError, match="not told"):
        searcher.ask(1)
    searcher.tell(trials)
    with pytest.raises(SearchError, match="do not match"):
        searcher.tell(trials)
    fresh = make_searcher(name, problem, seed=3, evaluations=EVALUATIONS)
    fresh.tell(tried(problem, fresh.ask(2)))
    assert fresh.ask(5) == searcher.ask(5)


def test_at_most_n_are_proposed_and_the_end_is_final(name: str) -> None:
    problem = small_problem("macs=50%", round_to=8)  # few policies: every searcher comes to an end
    searcher = make_searcher(name, problem, seed=3, evaluations=EVALUATIONS)
    for _ in range(1000):
        proposals = searcher.ask(3)
        assert len(proposals) <= 3
        if not proposals:
            break
        searcher.tell(tried(problem, proposals))
    assert searcher.ask(3) == []
    assert searcher.name == name


def test_seeds_matter_unless_the_policy_says_that_they_do_not(name: str) -> None:
    same = whole(name).trials == search(name, PROBLEMS["macs"], seed=4).trials
    assert same == (name in WITHOUT_SEED)
