"""The evaluator is a pure function: of plan and number of images, whatever came before and in whichever process."""

import hashlib
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from autoprune.costs.budget import Budget
from autoprune.datasets.splits import SearchSplits, Split
from autoprune.errors import PlanError, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.metrics import score
from autoprune.network.tracer import trace
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.reconstruction.gram import collect_grams
from tests.corpus import NETWORKS, input_shape
from tests.oracles import random_plan

SEARCH_IMAGES = 300


def _split(name: str, n: int, *, labels: bool = True) -> Split:
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, *input_shape("resnet_padded"), generator=generator)
    classes = torch.randint(10, (n,), generator=generator) if labels else None
    return Split(images, classes, name, hashlib.sha256(name.encode()).hexdigest())


def _problem(*, with_statistics: bool = True) -> PruningProblem:
    network = trace(NETWORKS["resnet_padded"](), input_shape("resnet_padded"))
    budget = Budget.parse("macs=60%")
    problem = pruning_problem(network, budget)
    if not with_statistics:
        return problem
    statistics = collect_grams(network, problem.groups, _split("fit", 64).inputs, points=16)
    return pruning_problem(network, budget, criterion="obs", statistics=statistics)


def _evaluator(problem: PruningProblem, *, labels: bool = True, **settings: int | str) -> Evaluator:
    splits = SearchSplits(_split("fit", 40, labels=labels), _split("search", SEARCH_IMAGES, labels=labels))
    return Evaluator(problem, splits, **settings)  # type: ignore[arg-type]


PROBLEM = _problem()
PLANS = [random_plan(PROBLEM.groups, seed, PROBLEM.model_sha256) for seed in range(3)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("labels", [True, False])
def test_an_evaluation_is_the_score_of_the_candidate(precision: str, labels: bool) -> None:
    evaluator = _evaluator(PROBLEM, labels=labels, precision=precision)
    for plan, images in ((PLANS[0], None), (PLANS[0], 20), (PLANS[1], 260), (PLANS[1], None)):
        found = evaluator.evaluate(plan, images=images)
        assert found == evaluator.score(evaluator.candidate(plan), images=images)
        assert found.images == (images or SEARCH_IMAGES)
        assert (found.top1 is None) == (not labels)


def test_order_and_repeats_do_not_show() -> None:
    first, second = _evaluator(PROBLEM), _evaluator(PROBLEM)
    asked = [(plan, images) for plan in PLANS for images in (None, 40)]
    forwards = {(i, images): first.evaluate(plan, images=images) for i, (plan, images) in enumerate(asked)}
    for i, (plan, images) in reversed(list(enumerate(asked))):
        assert second.evaluate(plan, images=images) == forwards[i, images]
        assert first.evaluate(plan, images=images) == forwards[i, images]


def _evaluate(evaluator: Evaluator, plan: Plan) -> Callable[..., object]:
    torch.set_num_threads(1)
    return evaluator.evaluate(plan).to_dict()


def test_another_process_gives_the_same_scores() -> None:
    evaluator = _evaluator(PROBLEM)
    expected = [evaluator.evaluate(plan).to_dict() for plan in PLANS]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert [pool.submit(_evaluate, evaluator, plan).result() for plan in reversed(PLANS)] == expected[::-1]


def test_what_is_remembered_does_not_travel() -> None:
    evaluator = _evaluator(_problem(with_statistics=False))
    fresh = len(pickle.dumps(evaluator))
    evaluator.evaluate(PLANS[0])
    assert len(pickle.dumps(evaluator)) == fresh


def test_candidates_are_reconstructed_and_recalibrated() -> None:
    plain, evaluator = _evaluator(_problem(with_statistics=False)), _evaluator(PROBLEM)
    plan = PLANS[0]
    bare, reconstructed, candidate = plain.reconstructed(plan), evaluator.reconstructed(plan), evaluator.candidate(plan)
    weights = [module.get_parameter("layer1.0.conv2.weight") for module in (bare, reconstructed, candidate)]
    statistics = [module.get_buffer("layer3.0.bn2.running_var") for module in (bare, reconstructed, candidate)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert torch.equal(statistics[0], statistics[1])
    assert not torch.equal(statistics[1], statistics[2])
    pruned, solved = plain.evaluate(plan).kl, evaluator.evaluate(plan).kl
    assert pruned is not None
    assert solved is not None
    assert solved < pruned


def test_the_unpruned_network_is_scored_as_trained() -> None:
    evaluator = _evaluator(PROBLEM)
    split = _split("search", SEARCH_IMAGES)
    module = PROBLEM.network.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    evaluator.evaluate(PLANS[0])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    expected = score(module, split.inputs, split.labels)
    unpruned = evaluator.unpruned()
    assert (unpruned.top1, unpruned.loss, unpruned.agreement, unpruned.kl) == (expected.top1, expected.loss, 1, 0)


def test_the_key_names_what_scores_depend_on() -> None:
    key = _evaluator(PROBLEM).settings_key
    assert _evaluator(PROBLEM, memory_bytes=0).settings_key == key
    others = [
        _evaluator(_problem(with_statistics=False)),
        _evaluator(PROBLEM, recalibration_images=39),
        _evaluator(PROBLEM, precision="bf16"),
    ]
    assert len({key, *(other.settings_key for other in others)}) == 4


@pytest.mark.parametrize("images", [0, -1, SEARCH_IMAGES + 1])
def test_numbers_of_images_that_are_not_there(images: int) -> None:
    with pytest.raises(SearchError, match=f"1 to {SEARCH_IMAGES} search images.*found {images}"):
        _evaluator(PROBLEM).evaluate(PLANS[0], images=images)


def test_a_plan_for_another_network() -> None:
    with pytest.raises(PlanError, match="does not have"):
        _evaluator(PROBLEM).evaluate(Plan({"nowhere": (0,)}, ""))


def test_a_negative_bound() -> None:
    with pytest.raises(SearchError, match="at least 0 bytes"):
        _evaluator(PROBLEM, memory_bytes=-1)
