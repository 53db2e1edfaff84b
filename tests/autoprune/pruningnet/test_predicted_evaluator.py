"""Scores with predicted weights: a pure function of the plan."""

import pickle

import pytest
import torch

from autoprune.errors import PlanError, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.pruning.plan import Plan
from autoprune.pruningnet.predicted_evaluator import PredictedEvaluator
from autoprune.pruningnet.pruningnet import PruningNet
from autoprune.search.random_search import RandomSearch
from tests.search.small_problems import real_splits, small_problem

PROBLEM = small_problem()
EVALUATOR = Evaluator(PROBLEM, real_splits())


def predicted(evaluator: Evaluator = EVALUATOR, *, stir: float = 0.05, seed: int = 0) -> PredictedEvaluator:
    net = PruningNet(evaluator.problem, scratch=False, hidden=4, seed=seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(stir * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return PredictedEvaluator(evaluator, net)


PLANS = [PROBLEM.plan(proposal.policy) for proposal in RandomSearch(PROBLEM, 0).ask(5)]


def test_scores_depend_on_the_plan_alone() -> None:
    first, second = predicted(), predicted()
    scores = [first.evaluate(plan) for plan in PLANS]
    assert [second.evaluate(plan) for plan in reversed(PLANS)] == scores[::-1]
    assert [first.evaluate(plan) for plan in PLANS] == scores
    assert len({each.loss for each in scores}) == len(PLANS)
    sent = pickle.loads(pickle.dumps(first))  # noqa: S301 - made here
    assert [sent.evaluate(plan) for plan in PLANS] == scores
    assert sent.settings_key == first.settings_key == second.settings_key
    assert first.evaluate(PLANS[0], images=10) == EVALUATOR.score(first.candidate(PLANS[0]), images=10)
    assert first.search_images == EVALUATOR.search_images


def test_untrained_it_scores_the_trained_weights_cropped_and_recalibrated() -> None:
    plain = Evaluator(small_problem(measured=False), real_splits())
    untrained = predicted(plain, stir=0)
    for plan in PLANS:
        assert untrained.evaluate(plan) == plain.evaluate(plan)


def test_the_key_names_the_weights_and_the_evaluator() -> None:
    keys = {
        EVALUATOR.settings_key,
        predicted().settings_key,
        predicted(stir=0.06).settings_key,
        predicted(Evaluator(PROBLEM, real_splits(), recalibration_images=16)).settings_key,
    }
    assert len(keys) == 4


def test_nothing_is_changed() -> None:
    evaluator = predicted()
    before, unpruned = evaluator._net.fingerprint(), PROBLEM.network.fingerprint()
    evaluator.evaluate(PLANS[0])
    assert (evaluator._net.fingerprint(), PROBLEM.network.fingerprint()) == (before, unpruned)


def test_other_networks_are_refused() -> None:
    with pytest.raises(SearchError, match="made for another network"):
        PredictedEvaluator(EVALUATOR, PruningNet(small_problem(), scratch=False, hidden=4, seed=0))
    with pytest.raises(PlanError):
        predicted().evaluate(Plan({"nowhere": (0,)}, ""))
