"""Recalibrated batch norm statistics are those of the images, however these are cut into batches."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import DatasetError, NumericalError
from autoprune.evaluation.recalibration import recalibrate

CPU = torch.device("cpu")


def images(n: int, seed: int = 0) -> Tensor:
    """Images whose statistics drift, so that batches differ from one another."""
    noise = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.5, 3, n)[:, None, None, None] + torch.linspace(-2, 4, n)[:, None, None, None]


def network() -> nn.Sequential:
    """Two convolutions with batch norm, and a dropout that must stay off."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.ReLU(), nn.Dropout(0.9),
            nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4),
        )  # fmt: skip


@pytest.mark.parametrize(("n", "batch_size"), [(50, 50), (50, 25), (50, 16), (50, 49), (51, 2), (7, 100)])
def test_statistics_of_the_first_norm_are_exactly_those_of_all_images(n: int, batch_size: int) -> None:
    module = network()
    inputs = images(n)
    recalibrate(module, inputs, batch_size=batch_size, device=CPU)
    seen = module[0](inputs).detach().double()
    norm = module[1]
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)).float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)).float(), rtol=1e-5, atol=1e-6)


def test_one_batch_equals_pytorch_cumulative_averaging_in_every_layer() -> None:
    inputs = images(40)
    ours, theirs = network(), network().eval()
    recalibrate(ours, inputs, device=CPU)
    for norm in (theirs[1], theirs[5]):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        theirs(inputs)
    for index in (1, 5):
        torch.testing.assert_close(ours[index].running_mean, theirs[index].running_mean)
        torch.testing.assert_close(ours[index].running_var, theirs[index].running_var)


def test_a_single_norm_does_not_depend_on_the_batch_size() -> None:
    inputs = images(64)
    small, large = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    recalibrate(small, inputs, batch_size=5, device=CPU)
    recalibrate(large, inputs, batch_size=64, device=CPU)
    torch.testing.assert_close(small.running_mean, large.running_mean)
    torch.testing.assert_close(small.running_var, large.running_var)


def test_only_running_statistics_change() -> None:
    module = network().train()
    before = copy.deepcopy(module.state_dict())
    inputs = images(20)
    kept = inputs.clone()
    state = torch.random.get_rng_state()
    recalibrate(module, inputs, batch_size=8, device=CPU)
    assert torch.equal(inputs, kept)
    assert torch.equal(torch.random.get_rng_state(), state)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(layer.training for layer in module.modules())
    assert (module[1].momentum, module[5].momentum) == (0.3, 0.1)
    assert not module[1]._forward_hooks


def test_the_old_statistics_do_not_matter_and_repeats_are_equal() -> None:
    first, second = network(), network()
    second[1].running_mean.fill_(float("nan"))
    second[5].running_var.fill_(1e9)
    for module in (first, second):
        recalibrate(module, images(30), batch_size=7, device=CPU)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_pixels_count_for_a_norm_on_features_without_extent() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    recalibrate(module, images(5), batch_size=2, device=CPU)
    seen = images(5).mean((2, 3))
    torch.testing.assert_close(module[1].running_var, seen.var(0))


def test_without_norms_nothing_happens() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).train()
    recalibrate(module, images(0))
    assert not module.training


def test_values_that_are_not_finite_name_the_layer() -> None:
    module = network()
    with torch.no_grad():
        module[4].weight[0] = float("inf")
    with pytest.raises(NumericalError, match=r"'5'.*not finite"):
        recalibrate(module, images(10), device=CPU)
    assert module[5].momentum == 0.1
    assert not module.training
    assert not module[5]._forward_hooks


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images(n: int) -> None:
    with pytest.raises(DatasetError, match=f"at least 2 images.*found {n}"):
        recalibrate(network(), images(n))
