"""Predicted weights: at the start those of the trained network, and always cropped as surgery cuts."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.errors import PlanError
from autoprune.network.network import Network, own_copy
from autoprune.network.tracer import trace
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.pruningnet.pruningnet import PruningNet
from autoprune.pruningnet.widths import SCALES, random_plan
from tests import corpus
from tests.oracles import random_plan as any_plan
from tests.search.small_problems import small_problem


@cache
def problem_of(name: str) -> PruningProblem:
    """Every group may be pruned, residual streams too."""
    network = trace(corpus.NETWORKS[name](), corpus.input_shape(name))
    return pruning_problem(network, Budget.parse("params=99%"), include_residual=True)


def made(problem: PruningProblem, *, scratch: bool = False, seed: int = 0) -> PruningNet:
    return PruningNet(problem, scratch=scratch, hidden=4, seed=seed)


def stirred(net: PruningNet) -> PruningNet:
    """Move every parameter, so that no prediction is what it was at the start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def holding(network: Network, weights: dict[str, torch.Tensor]) -> Network:
    """Return the network with other parameters in the same shapes."""
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for layer_name, layer in layers.items():
        for name, parameter in layer._parameters.items():
            if parameter is not None:
                layer._parameters[name] = nn.Parameter(weights[f"{layer_name}.{name}"].detach().clone())
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def assert_same(first: nn.Module, second: nn.Module) -> None:
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("name", corpus.NETWORKS)
def test_untrained_it_is_the_trained_network_cropped(name: str) -> None:
    problem = problem_of(name)
    net = made(problem)
    for seed in range(2):
        plan = any_plan(problem.groups, seed)
        candidate = net.candidate(plan)
        assert_same(candidate, prune(problem.network, problem.all_groups, plan))
        assert not candidate.training


@pytest.mark.parametrize("name", corpus.NETWORKS)
def test_the_crop_is_what_surgery_cuts_of_the_whole_prediction(name: str) -> None:
    problem = problem_of(name)
    net = stirred(made(problem))
    plan = any_plan(problem.groups, 3)
    whole = holding(problem.network, net.whole(net.encoding(plan)))
    candidate, cut = net.candidate(plan), prune(whole, problem.all_groups, plan)
    assert_same(candidate, cut)
    images = corpus.images(name)
    with torch.no_grad():
        assert torch.equal(candidate(images), cut(images))
        assert not torch.equal(candidate(images), prune(problem.network, problem.all_groups, plan)(images))


def test_the_crop_is_the_first_channels_in_the_order_of_the_problem() -> None:
    """Permuted once, the predicted weights of a width are a corner of the whole: independent of surgery."""
    problem = small_problem()
    net = stirred(made(problem))
    kept = [7, 11, 13]
    plan = problem.plan(problem.policy(kept))
    whole, candidate = net.whole(net.encoding(plan)), net.candidate(plan)
    first, second, third = (list(order) for order in problem.order)
    corners = {
        "conv0": whole["conv0.weight"][first][:7],
        "conv1": whole["conv1.weight"][second][:, first][:11, :7],
        "conv2": whole["conv2.weight"][third][:, second][:13, :11],
        "depthwise": whole["depthwise.weight"][third][:13],
        "head": whole["head.weight"][:, third][:, :13],
    }
    ranks = [np.argsort(np.argsort(order[:count])) for order, count in zip(problem.order, kept, strict=True)]
    rows = {"conv0": ranks[0], "conv1": ranks[1], "conv2": ranks[2], "depthwise": ranks[2], "head": np.arange(5)}
    columns = {"conv1": ranks[0], "conv2": ranks[1], "head": ranks[2]}
    for name, corner in corners.items():
        found = candidate.get_submodule(name).weight  # its channels are in the order of the network
        assert isinstance(found, torch.Tensor)
        found = found[rows[name]]
        assert torch.equal(found[:, columns[name]] if name in columns else found, corner), name


def test_a_layer_sees_the_widths_around_it_and_no_others() -> None:
    problem = small_problem()
    net = stirred(made(problem))
    assert net.predicted == ("conv0", "conv1", "conv2", "depthwise", "head")
    before = net.whole(torch.tensor([1.0, 1.0, 1.0]))
    after = net.whole(torch.tensor([1.0, 1.0, 0.5]))
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"conv2", "depthwise", "head"}


def test_what_a_plan_does_not_name_is_whole() -> None:
    problem = small_problem()
    net = made(problem)
    assert net.encoding(Plan({}, "")).tolist() == [1, 1, 1]
    assert net.encoding(problem.plan(problem.policy([4, 12, 32]))).tolist() == [0.25, 0.5, 1]
    with pytest.raises(PlanError):
        net.candidate(Plan({"nowhere": (0,)}, ""))


def test_gradients_reach_what_is_kept_and_nothing_else() -> None:
    problem = small_problem()
    net = made(problem)
    plan = problem.plan(problem.policy([4, 24, 32]))
    module, weights = net.cropped(plan)
    torch.func.functional_call(module, weights, (torch.randn(2, 3, 8, 8),)).square().sum().backward()
    bias = net._predictors[0].last.bias.grad.view(16, 3, 3, 3)  # type: ignore[union-attr]
    gone = [unit for unit in range(16) if unit not in plan.kept[problem.names[0]]]
    stays = list(plan.kept[problem.names[0]])
    assert not bias[gone].any()
    assert bias[stays].flatten(1).any(1).all()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_from_scratch_nothing_is_left_of_the_trained_network() -> None:
    problem = small_problem()
    with torch.no_grad():
        problem.network.module.get_submodule("norm0").bias.add_(1)  # type: ignore[operator,union-attr]
    net = made(problem, scratch=True)
    plan = problem.plan(problem.policy([16, 24, 32]))
    found, trained = net.candidate(plan).state_dict(), problem.network.module.state_dict()
    assert not any(torch.equal(found[f"{name}.weight"], trained[f"{name}.weight"]) for name in net.predicted)
    assert not found["norm0.bias"].any()
    assert net._predictors[0].trained is None


def test_the_seed_decides_and_the_global_state_plays_no_part() -> None:
    problem = small_problem()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = made(problem, scratch=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert first.fingerprint() == made(problem, scratch=True).fingerprint()
    assert first.fingerprint() != made(problem, scratch=True, seed=1).fingerprint()
    assert made(problem).fingerprint() != stirred(made(problem)).fingerprint()


def test_widths_are_the_papers_where_they_are_allowed() -> None:
    assert (len(SCALES), SCALES[0], SCALES[1], SCALES[-1]) == (31, 0.10, 0.13, 1.0)
    problem = small_problem(round_to=4)
    generator = np.random.default_rng(0)
    plans = [random_plan(problem, generator) for _ in range(200)]
    for name, width in zip(problem.names, problem.widths, strict=True):
        assert {len(plan.kept[name]) for plan in plans} == set(width.tolist())
    assert [random_plan(problem, np.random.default_rng(0)) for _ in range(2)] == [plans[0], plans[0]]
