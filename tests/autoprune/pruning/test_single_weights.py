"""Single weights: masks keep exactly the largest, and the budget counts exactly what the exported file holds."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.criteria.catalog import criterion_names
from autoprune.criteria.data import criterion_data
from autoprune.criteria.weights import score_weights
from autoprune.errors import BudgetError, InfeasibleBudgetError, ModelError, PlanError, SearchError
from autoprune.evaluation.weight_evaluator import WeightEvaluator
from autoprune.formats.onnx_export import export_onnx
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, NetworkBuilder
from autoprune.problem import pruning_problem
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.weight_masks import WeightPlan, best_mask, mask_weights, nonzero_weights
from autoprune.pruning.weight_problem import MOST_WIDTHS, WeightPruningProblem, weight_pruning_problem
from tests.search.small_problems import real_splits, small_network

NETWORK = small_network()


def with_zeros() -> Network:
    """Return the small network with zeros among its weights before anybody pruned it."""
    network = small_network()
    layers = network.layers()
    with torch.no_grad():
        layers["conv1"].get_parameter("weight")[:, ::2] = 0.0
        layers["head"].get_parameter("weight")[0, :7] = 0.0
    return network


@cache
def problem_of(budget: str, zeros: bool = False) -> WeightPruningProblem:
    return weight_pruning_problem(with_zeros() if zeros else NETWORK, Budget.parse(budget))


values = st.lists(st.sampled_from([0.5, -0.5, 1.0, -1.0, 2.0, 0.25, -3.0]), min_size=1, max_size=24)


@given(values, st.data())
def test_a_mask_keeps_the_largest_and_of_equals_the_first(weights: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(weights)))
    order = sorted(range(len(weights)), key=lambda index: (-abs(weights[index]), index))
    mask = best_mask(torch.tensor(weights).abs().reshape(-1, 1), kept)
    assert mask.shape == (len(weights), 1)
    assert set(mask.flatten().nonzero().flatten().tolist()) == set(order[:kept])


def test_masked_networks_hold_exactly_the_weights_of_the_plan() -> None:
    for network in (NETWORK, with_zeros()):
        sizes = nonzero_weights(network)
        before = network.fingerprint()
        plan = WeightPlan({name: 1 + size // 3 for name, size in sizes.items() if name != "depthwise"}, before)
        masked = mask_weights(network, plan, score_weights(network, "l1"))
        for name, layer in network.layers().items():
            pruned = masked.get_submodule(name)
            if not isinstance(layer, PRODUCERS):
                assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), pruned.buffers(), strict=True))
                continue
            weight = pruned.get_parameter("weight")
            assert torch.count_nonzero(weight) == plan.kept.get(name, sizes[name])
            stays = weight != 0
            assert torch.equal(weight[stays], layer.weight[stays])
            if name in plan.kept:
                assert weight[stays].abs().min() >= layer.weight[~stays].abs().max()
        assert network.fingerprint() == before


@pytest.mark.parametrize("criterion", criterion_names("weight"))
def test_any_criterion_leaves_exact_counts_of_its_best_weights(criterion: str) -> None:
    splits = real_splits()
    data = criterion_data(splits.fit, seed=1)
    for zeros, network in ((False, NETWORK), (True, with_zeros())):
        problem = weight_pruning_problem(network, Budget.parse("nonzero=30%"), criterion=criterion, data=data)
        plan = problem.plan(PruningPolicy.uniform(0.8, len(problem.names)))
        masked = WeightEvaluator(problem, splits).candidate(plan)
        scores = score_weights(network, criterion, data)
        for name, kept in plan.kept.items():
            stays = masked.get_submodule(name).get_parameter("weight") != 0
            assert int(stays.sum()) == kept
            there = network.layers()[name].get_parameter("weight") != 0
            assert zeros or bool(there.all())
            assert scores[name][stays].min() >= scores[name][there & ~stays].max()


def test_plans_of_other_networks_are_refused() -> None:
    size = nonzero_weights(NETWORK)["conv0"]
    for kept, message in (
        ({"conv9": 3}, "names layer 'conv9'"),
        ({"norm0": 3}, "names layer 'norm0'"),
        ({"conv0": 0}, f"expected 1 to {size} weights"),
        ({"conv0": size + 1}, f"expected 1 to {size} weights"),
    ):
        with pytest.raises(PlanError, match=message):
            mask_weights(NETWORK, WeightPlan(kept, "sha"), {})


@pytest.mark.parametrize("zeros", [False, True])
def test_costs_count_what_the_exported_file_holds(zeros: bool, tmp_path: Path) -> None:
    problem = problem_of("nonzero=40%", zeros)
    evaluator = WeightEvaluator(problem, real_splits())
    kept = [int(width[len(width) // 3]) for width in problem.widths]
    for counts in (problem.full().tolist(), kept):
        module = evaluator.candidate(problem.plan(problem.policy(counts)))
        export_onnx(module, tmp_path / "masked.onnx", input_shape=problem.network.input_shape)
        model = onnx.load(str(tmp_path / "masked.onnx"))
        stored = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        found = sum(int(np.count_nonzero(array)) for array in stored if array.dtype == np.float32)
        assert problem.cost(counts) == {"nonzero": found}
    whole = pruning_problem(problem.network, Budget.parse("macs=50%"))
    params = whole.cost(whole.costs.full())["params"]
    weights = sum(layer.weight.numel() for layer in problem.network.layers().values() if isinstance(layer, PRODUCERS))
    assert problem.cost(problem.full())["nonzero"] == params - (weights - int(problem.full().sum()))


@pytest.mark.parametrize("budget", ["nonzero=30%", "nonzero=5k"])
def test_limits_are_resolved_against_what_is_not_zero(budget: str) -> None:
    problem = problem_of(budget, zeros=True)
    full = problem.cost(problem.full())["nonzero"]
    assert problem.limits == {"nonzero": int(0.3 * full) if "%" in budget else 5000}
    assert problem.fits(problem.smallest())
    assert not problem.fits(problem.full())


def test_widths_run_from_the_floor_to_the_whole_layer() -> None:
    problem = weight_pruning_problem(small_network((64, 64, 64)), Budget.parse("nonzero=50%"), max_ratio=0.9)
    for name, width in zip(problem.names, problem.widths, strict=True):
        size = nonzero_weights(problem.network)[name]
        assert width[-1] == size
        assert (width[0] - 1) / size < 0.1 <= width[0] / size
        steps = np.diff(width)
        assert (steps >= 1).all()
        assert len(width) <= MOST_WIDTHS
        assert steps.max() - steps.min() <= 1
        assert len(width) == min(MOST_WIDTHS, size - width[0] + 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5))
def test_policies_and_kept_counts_say_the_same(ratios: list[float]) -> None:
    problem = problem_of("nonzero=30%")
    kept = problem.kept(PruningPolicy.of(ratios))
    for ratio, count, width in zip(ratios, kept.tolist(), problem.widths, strict=True):
        wanted = (1 - ratio) * int(width[-1])
        assert abs(count - wanted) == pytest.approx(float(np.abs(width - wanted).min()), abs=1e-6)
    assert problem.kept(problem.policy(kept)).tolist() == kept.tolist()
    assert list(problem.plan(problem.policy(kept)).kept.values()) == kept.tolist()
    assert problem.cost(kept)["nonzero"] == int(kept.sum()) + problem.other_params


def test_what_makes_no_problem_is_refused() -> None:
    for budget in ("macs=50%", "nonzero=50%,params=50%", "latency=50%"):
        with pytest.raises(BudgetError, match="cannot be limited here" if "latency" not in budget else "latency"):
            problem_of(budget)
    with pytest.raises(BudgetError, match="nonzero cannot be limited here"):
        pruning_problem(NETWORK, Budget.parse("nonzero=50%"))
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable"):
        problem_of("nonzero=0.5%")
    with pytest.raises(BudgetError, match="max_ratio"):
        weight_pruning_problem(NETWORK, Budget.parse("nonzero=50%"), max_ratio=1.0)
    with pytest.raises(SearchError, match="5 ratios, found 2"):
        problem_of("nonzero=50%").kept(PruningPolicy((0.1, 0.2)))
    b = NetworkBuilder("image", (3, 8, 8))
    without = b.finish(b.add(nn.ReLU(), b.input, name="relu"))
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        weight_pruning_problem(without, Budget.parse("nonzero=50%"))


def test_evaluation_is_a_pure_function_of_the_plan() -> None:
    problem = problem_of("nonzero=30%")
    evaluator = WeightEvaluator(problem, real_splits())
    before = problem.network.fingerprint()
    plans = [problem.plan(PruningPolicy.uniform(ratio, 5)) for ratio in (0.7, 0.2, 0.7)]
    first, other, again = (evaluator.evaluate(plan) for plan in plans)
    assert first == again == WeightEvaluator(problem, real_splits()).evaluate(plans[0])
    assert first != other
    assert problem.network.fingerprint() == before
    nothing = evaluator.evaluate(problem.plan(PruningPolicy.uniform(0, 5)))
    assert nothing.images == evaluator.unpruned().images == 64
    assert evaluator.unpruned().agreement == 1
