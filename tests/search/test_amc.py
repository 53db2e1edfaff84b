"""AMC as a searcher: what it proposes, and what it learns from."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.envs.layer_features import LayerFeatures
from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.errors import Cancelled, SearchError
from autoprune.problem import PruningProblem
from autoprune.search.amc.agent import AmcAgent, Observation
from autoprune.search.amc.searcher import LAST_EPISODES, Amc, expected_gain, transitions
from autoprune.search.amc.settings import AmcSettings
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.local_pool import local_pool
from autoprune.search.pool import EvaluationPool, ShouldStop, never
from autoprune.search.random_search import RandomSearch
from autoprune.search.screening import Screening
from autoprune.search.searcher import Searcher
from tests.search.small_problems import FormulaEvaluator, small_problem

WEIGHTS = (1, 3, 9)

PROBLEM = small_problem("macs=50%", measured=False)

FAST = AmcSettings(hidden=(16, 16), batch_size=16)


def search(
    searcher: Searcher,
    evaluations: int,
    *,
    problem: PruningProblem = PROBLEM,
    batch: int = 16,
    screening: Screening | None = None,
    pool: EvaluationPool | None = None,
) -> SearchResult:
    evaluator = FormulaEvaluator(problem, WEIGHTS, noise=0.01)
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            evaluator,
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=batch,
            screening=screening,
            pool=pool,
        )


def test_transitions_are_those_that_the_environment_shows() -> None:
    """No feature comes a layer late: what follows a decision is what the next one is made on."""
    kept = PROBLEM.kept(PROBLEM.project(RandomSearch(PROBLEM, 0).ask(1)[0].policy)).tolist()
    walked = list(transitions(PROBLEM, LayerFeatures(PROBLEM), kept))
    env = LayerwisePruningEnv(PROBLEM, FormulaEvaluator(PROBLEM))
    observation, _ = env.reset()
    for number, each in enumerate(walked):
        assert (each.observation == observation).all()
        assert each.ratio == 1 - kept[number] / len(PROBLEM.groups[number])
        observation, _, done, _, info = env.step(np.array([each.ratio], dtype=np.float32))
        assert (each.following == observation).all()
        assert each.done == done
        assert info["kept"] == kept[number]
    for one, following in itertools.pairwise(walked):
        assert (one.following == following.observation).all()
    assert [each.done for each in walked] == [False, False, True]


def test_the_reward_goes_to_every_transition_of_its_episode() -> None:
    amc = Amc(PROBLEM, 0, 10, FAST)
    trials = search(amc, 10).trials
    rewards = amc._agent.replay_buffer.rewards[:30, 0].reshape(10, 3)
    assert np.allclose(rewards, [[trial.objective - 1] * 3 for trial in trials])
    dones = amc._agent.replay_buffer.dones[:30, 0].reshape(10, 3)
    assert (dones == [0, 0, 1]).all()
    actions = amc._agent.replay_buffer.actions[:30, 0, 0].reshape(10, 3)
    removed = [[1 - kept / len(group) for kept, group in zip(t.kept, PROBLEM.groups, strict=True)] for t in trials]
    assert np.allclose(actions, 2 * np.array(removed) - 1)


@pytest.mark.parametrize("parallel", [1, 4])
def test_one_update_per_transition_after_the_warm_up(parallel: int) -> None:
    amc = Amc(PROBLEM, 0, 50, replace(FAST, warmup_episodes=20, parallel_episodes=parallel))
    assert amc.warmup == 20
    search(amc, 20)
    assert amc._agent.updates == 0
    amc = Amc(PROBLEM, 0, 50, replace(FAST, warmup_episodes=20, parallel_episodes=parallel))
    search(amc, 50)
    assert amc._agent.updates == 30 * 3
    assert amc._agent.episodes == 50


def test_the_warm_up_is_uniform_and_then_every_episode_explores_less(monkeypatch: pytest.MonkeyPatch) -> None:
    noises: list[float] = []
    explored = AmcAgent.explored

    def watched(agent: AmcAgent, observation: Observation, noise: float) -> float:
        noises.append(noise)
        return explored(agent, observation, noise)

    monkeypatch.setattr(AmcAgent, "explored", watched)
    for parallel in (1, 4):
        noises.clear()
        search(Amc(PROBLEM, 0, 20, replace(FAST, warmup_episodes=8, parallel_episodes=parallel)), 20)
        expected = [math.inf] * 8 + [0.5 * 0.95**episode for episode in range(12)]
        assert noises == [noise for noise in expected for _ in PROBLEM.groups]


def test_episodes_are_asked_for_one_by_one_after_the_warm_up_unless_parallel() -> None:
    sizes = []
    for parallel in (1, 4):
        amc = Amc(PROBLEM, 0, 30, replace(FAST, warmup_episodes=10, parallel_episodes=parallel))
        sizes.append(asked(amc, 8))
    assert sizes == [[8, 2, *[1] * 20], [8, 2, *[4] * 5]]


def asked(searcher: Amc, n: int) -> list[int]:
    """Return how many proposals there are each time `n` are asked for, to the end."""
    sizes: list[int] = []

    class Counting:
        name = "counting"

        def ask(self, _: int) -> list[object]:
            proposals = searcher.ask(n)
            sizes.append(len(proposals))
            return list(proposals)

        def tell(self, trials: Sequence[object]) -> None:
            searcher.tell(trials)  # type: ignore[arg-type]

    search(Counting(), 1000, batch=n)  # type: ignore[arg-type]
    return sizes[:-1]


def test_what_is_evaluated_fills_the_budget_if_asked_to() -> None:
    trials = search(Amc(PROBLEM, 0, 30, replace(FAST, fill=True)), 30).trials
    for trial in trials:
        for index, width in enumerate(PROBLEM.widths):
            wider = width[np.searchsorted(width, trial.kept[index], side="right") :][:1].tolist()
            assert not wider or not PROBLEM.fits([*trial.kept[:index], *wider, *trial.kept[index + 1 :]])


def test_the_experience_of_other_policies_stands_in_for_the_warm_up() -> None:
    others = search(RandomSearch(PROBLEM, 1), 30).trials
    amc = Amc(PROBLEM, 0, 80, replace(FAST, warmup_episodes=50), experience=others)
    assert amc.warmup == 20
    assert amc._agent.replay_buffer.size() == 90
    assert np.allclose(amc._agent.replay_buffer.rewards[:3], others[0].objective - 1)
    rich = Amc(PROBLEM, 0, 80, replace(FAST, warmup_episodes=10), experience=others)
    assert (rich.warmup, rich._agent.updates) == (0, 20 * 3)
    left_out = [replace(trial, screened_out=True) for trial in others]
    assert Amc(PROBLEM, 0, 80, replace(FAST, warmup_episodes=50), experience=left_out).warmup == 50


def test_episodes_that_end_where_one_was_before_cost_no_evaluation() -> None:
    few = small_problem("macs=50%", round_to=8, measured=False)
    settings = replace(FAST, warmup_episodes=4)
    plain = search(Amc(few, 0, 20, settings), 20, problem=few)
    free = search(Amc(few, 0, 20, replace(settings, free_episodes=10)), 20, problem=few)
    assert len({trial.kept for trial in free.trials}) > len({trial.kept for trial in plain.trials})
    amc = Amc(few, 0, 20, replace(FAST, warmup_episodes=12, free_episodes=10))
    search(amc, 20, problem=few)
    assert amc._agent.episodes > 20
    assert amc._agent.updates == (amc._agent.episodes - 12) * 3  # free ones are learned from like all others


def test_a_search_ends_early_when_nothing_is_to_gain() -> None:
    settings = replace(FAST, warmup_episodes=10, noise_decay=0.8)
    whole = search(Amc(PROBLEM, 0, 120, settings), 120)
    amc = Amc(PROBLEM, 0, 120, replace(settings, stop_early=True))
    stopped = search(amc, 120)
    assert 40 <= len(stopped.trials) < 120
    assert stopped.trials == whole.trials[: len(stopped.trials)]
    assert amc.stopped_below is not None


@pytest.mark.parametrize("episodes", [1, 5, 100])
def test_the_expected_gain_is_that_of_a_simulation(episodes: int) -> None:
    last = [0.5, 0.55, 0.6, 0.65, 0.7]
    generator = np.random.default_rng(0)
    drawn = generator.normal(np.mean(last), np.std(last, ddof=1), (20_000, episodes)).max(axis=1)
    simulated = float(np.maximum(drawn - 0.68, 0).mean())
    assert expected_gain(last, 0.68, episodes) == pytest.approx(simulated, rel=0.1)
    assert expected_gain(last, 0.68, 0) == 0
    assert expected_gain([0.6, 0.6], 0.68, episodes) == 0


@pytest.mark.parametrize("best", [0.1, 0.7, 0.9])
def test_equal_scores_are_expected_to_go_on(best: float) -> None:
    """Equal but for rounding, as those of an agent that has settled: no integral fails or warns."""
    for last in ([0.7] * 30, [0.7] * 29 + [0.7 + 1e-16], [0.7] * 29 + [0.7 + 1e-12]):
        assert expected_gain(last, best, 50) == pytest.approx(max(0.0, 0.7 - best), abs=1e-11)


def test_an_agent_that_has_settled_stops_at_once() -> None:
    amc = Amc(PROBLEM, 0, 100, replace(FAST, warmup_episodes=0, noise=1e-9, stop_early=True))
    assert len(search(amc, 100).trials) == LAST_EPISODES
    assert amc.ask(1) == []


def test_rewards_may_come_from_fewer_images_which_buys_more_episodes() -> None:
    amc = Amc(PROBLEM, 0, 60, replace(FAST, parallel_episodes=8, replay_episodes=200))
    result = search(amc, 60, screening=Screening(20, keep=0.25, audit=8))
    assert result.screening is not None
    assert result.screening.turned_off is None
    assert not result.best.screened_out
    assert len(result.trials) > 1.5 * 60
    cheap = result.screening.pairs + result.screening.screened_out
    assert 59 <= result.screening.full + 0.2 * cheap <= 60
    learned = amc._agent.episodes  # the driver need not tell what the last evaluations were spent on
    assert len(result.trials) - 8 <= learned <= len(result.trials)
    rewards = amc._agent.replay_buffer.rewards[: 3 * learned, 0].reshape(-1, 3)
    assert np.allclose(rewards, [[trial.objective - 1] * 3 for trial in result.trials[:learned]])


def test_parallel_episodes_in_two_processes_leave_the_same_trials_and_the_same_agent(tmp_path: Path) -> None:
    settings = replace(FAST, parallel_episodes=4, warmup_episodes=8)
    alone = Amc(PROBLEM, 0, 24, settings)
    expected = search(alone, 24).trials
    alone.save_agent(tmp_path / "alone")
    with local_pool(2) as pool:
        shared = Amc(PROBLEM, 0, 24, settings)
        assert search(shared, 24, pool=pool).trials == expected
    shared.save_agent(tmp_path / "shared")
    assert (tmp_path / "shared").read_bytes() == (tmp_path / "alone").read_bytes()


def test_a_search_with_everything_switched_on_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    settings = replace(FAST, warmup_episodes=5, parallel_episodes=8, fill=True, free_episodes=3, stop_early=True)
    experience = search(RandomSearch(PROBLEM, 1), 10).trials

    def run(journal: Journal, name: str, should_stop: ShouldStop = never) -> SearchResult:
        amc = Amc(PROBLEM, 3, 30, settings, experience=experience, log=tmp_path / f"log {name}")
        result = run_search(
            PROBLEM,
            FormulaEvaluator(PROBLEM, WEIGHTS, noise=0.01),
            amc,
            evaluations=30,
            journal=journal,
            batch=16,
            screening=Screening(20, keep=0.25, audit=6),
            should_stop=should_stop,
        )
        amc.save_agent(tmp_path / name)
        return result

    with Journal("sqlite://") as journal:
        whole = run(journal, "whole")
    for allowed in (20, 45):
        answers = iter([False] * allowed)
        with Journal("sqlite://") as journal:
            with pytest.raises(Cancelled):
                run(journal, "stopped", lambda answers=answers: next(answers, True))
            resumed = run(journal, "resumed")
        assert resumed.trials == whole.trials
        assert resumed.evaluated < whole.evaluated
        assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_agent_goes_on_with_another_network_and_budget(tmp_path: Path) -> None:
    first = Amc(PROBLEM, 0, 60, FAST)
    search(first, 60)
    first.save_agent(tmp_path / "agent.safetensors")
    other = small_problem("params=40%", widths=(8, 16, 16, 24), measured=False)
    asked_for = Amc(other, 0, 20, replace(FAST, warmup_episodes=5), agent=tmp_path / "agent.safetensors")
    assert asked_for.warmup == 5
    second = Amc(other, 0, 20, FAST, agent=tmp_path / "agent.safetensors")
    assert second.warmup == 0
    assert second.policy() == Amc(other, 1, 20, FAST, agent=tmp_path / "agent.safetensors").policy()
    evaluator = FormulaEvaluator(other)
    with Journal("sqlite://") as journal:
        result = run_search(other, evaluator, second, evaluations=20, journal=journal)
    assert len(result.trials) == 20
    assert second._agent.episodes == 80
    assert second._agent.updates == 20 * 4


def test_equal_searches_leave_equal_agents(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        amc = Amc(PROBLEM, 3, 40, FAST)
        search(amc, 40)
        amc.save_agent(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_a_log_for_tensorboard_is_written_on_request(tmp_path: Path) -> None:
    search(Amc(PROBLEM, 0, 12, FAST, log=tmp_path / "log"), 12)
    (events,) = (tmp_path / "log").glob("events.out.tfevents.*")
    content = events.read_bytes()
    for name in (b"episode/reward", b"episode/best", b"train/baseline", b"train/critic_loss"):
        assert name in content


def test_what_cannot_be_searched_with_is_refused() -> None:
    with pytest.raises(SearchError, match="at least 0, found -1"):
        Amc(PROBLEM, -1, 10)
    with pytest.raises(SearchError, match="needs the cost 'nonzero'"):
        Amc(PROBLEM, 0, 10, AmcSettings(reward="-error*log(nonzero)"))
