"""Batch norm put back and folded again: never another function."""

import pytest
import torch
from torch import Tensor, nn

from autoprune.network.batchnorm import fold_batchnorm, insert_batchnorm, measure_batchnorm
from autoprune.network.layers import Add, Mul
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from tests.corpus import NETWORKS, input_shape
from tests.oracles import randomise

SHAPE = (3, 8, 8)


def _network() -> Network:
    """Bare, normed, transposed, depthwise and reused convolutions, and a batch norm without convolution."""
    torch.manual_seed(0)
    builder = NetworkBuilder("image", SHAPE)
    add = builder.add
    x = add(nn.Conv2d(3, 8, 3, padding=1), builder.input, name="bare")
    x = add(nn.ReLU(), x, name="relu")
    y = add(nn.BatchNorm2d(8), add(nn.Conv2d(8, 8, 3, 1, 1, bias=False), x, name="conv"), name="conv_norm")
    z = add(nn.Conv2d(8, 8, 3, 1, 1, groups=8), y, name="depthwise")
    both = add(Add(), add(nn.BatchNorm2d(8, eps=1e-3), z, name="of_two"), z, name="both")
    x = add(Mul(), add(nn.BatchNorm2d(8), x, name="alone"), both, name="product")
    x = add(nn.ConvTranspose2d(8, 4, 2, 2, groups=2, bias=False), x, name="up")
    return randomise(builder.finish(add(nn.BatchNorm2d(4), x, name="up_norm")), 1)


def _same(a: Network, b: Network, tolerance: float = 1e-5) -> None:
    images = torch.randn(3, *a.input_shape)
    with torch.no_grad():
        expected = a.module(images)
        assert float((b.module(images) - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def _norms(network: Network) -> list[str]:
    return [name for name, layer in network.layers().items() if isinstance(layer, nn.BatchNorm2d)]


def test_insertion_follows_bare_convolutions_only() -> None:
    network = _network()
    before = network.fingerprint()
    inserted = insert_batchnorm(network)
    added = set(_norms(inserted)) - set(_norms(network))
    assert {name.split("_")[0] for name in added} == {"bare", "depthwise"}
    _same(network, inserted)
    assert network.fingerprint() == before
    assert insert_batchnorm(inserted).layers().keys() == inserted.layers().keys()
    assert insert_batchnorm(network).fingerprint() == inserted.fingerprint()


def test_measured_statistics_are_those_of_the_images() -> None:
    network = insert_batchnorm(_network())
    before = network.fingerprint()
    images = torch.randn(50, *SHAPE) * 2 + 1
    measured = measure_batchnorm(network, images, batch_size=16)
    _same(network, measured)
    assert network.fingerprint() == before
    name = next(name for name in _norms(measured) if name.startswith("bare"))
    norm = measured.layers()[name]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        entering = network.layers()["bare"](images).double()
    torch.testing.assert_close(norm.running_mean, entering.mean((0, 2, 3)).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_var, entering.var((0, 2, 3), correction=0).float(), atol=1e-5, rtol=1e-4)
    for other in ("conv_norm", "alone"):
        assert torch.equal(_mean(measured, other), _mean(network, other))


def _mean(network: Network, name: str) -> Tensor:
    mean = network.module.get_buffer(f"{name}.running_mean")
    assert mean is not None
    return mean


def test_constant_channels_stay_finite() -> None:
    network = _network()
    nn.init.zeros_(network.module.get_parameter("bare.weight"))
    inserted = insert_batchnorm(network)
    _same(inserted, measure_batchnorm(inserted, torch.randn(8, *SHAPE)))


def test_folding_removes_what_follows_a_convolution() -> None:
    network = _network()
    before = network.fingerprint()
    folded = fold_batchnorm(network)
    assert _norms(folded) == ["of_two", "alone"]
    assert all(folded.module.get_parameter(f"{name}.bias") is not None for name in ("conv", "up"))
    _same(network, folded)
    assert network.fingerprint() == before
    assert fold_batchnorm(folded).fingerprint() == folded.fingerprint()


@pytest.mark.parametrize("name", NETWORKS)
def test_all_kinds_of_networks_stay_the_same(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    folded = fold_batchnorm(network)
    _same(network, folded)
    restored = measure_batchnorm(insert_batchnorm(folded), torch.randn(8, *network.input_shape))
    _same(network, restored)
    _same(network, fold_batchnorm(restored))
