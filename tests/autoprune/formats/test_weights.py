"""Weights as safetensors: what is saved comes back, and whatever does not fit is named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.errors import ModelError
from autoprune.formats.weights import load_weights, save_weights
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from tests.oracles import randomise


def _network(seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(144, 2))
    return randomise(trace(module, (3, 8, 8)), seed)


def test_weights_come_back_in_a_new_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    saved, other = _network(1), _network(2)
    before = other.fingerprint()
    save_weights(saved.module, path)
    loaded = load_weights(other, path)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded.module(images), saved.module(images))
    assert other.fingerprint() == before
    for tensor in loaded.module.state_dict().values():
        tensor.fill_(0)
    assert other.fingerprint() == before
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_step_counters_are_neither_saved_nor_needed(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(_network(1).module, path)
    tensors = load_file(path)
    assert not any("num_batches_tracked" in name for name in tensors)
    save_file({**tensors, "1.num_batches_tracked": torch.tensor(3)}, path)
    load_weights(_network(2), path)


def test_half_precision_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    network = _network(1)
    save_weights(network.module, path)
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    loaded = load_weights(network, path)
    assert {tensor.dtype for name, tensor in loaded.module.named_parameters()} == {torch.float32}
    half, full = (n.module.get_parameter("0.weight") for n in (loaded, network))
    torch.testing.assert_close(half, full, atol=1e-3, rtol=0)


def _without(tensors: dict[str, Tensor]) -> None:
    del tensors["0.bias"]


def _with(tensors: dict[str, Tensor]) -> None:
    tensors["head.weight"] = torch.zeros(2)


def _reshaped(tensors: dict[str, Tensor]) -> None:
    tensors["4.weight"] = torch.zeros(3, 144)


def _nan(tensors: dict[str, Tensor]) -> None:
    tensors["1.running_var"][2] = float("nan")


def _infinite(tensors: dict[str, Tensor]) -> None:
    tensors["2.weight"][0] = float("-inf")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without, "missing 0.bias, unknown nothing"),
        (_with, "missing nothing, unknown head.weight"),
        (_reshaped, r"4.weight has shape \(3, 144\), expected \(2, 144\)"),
        (_nan, "1.running_var holds NaN or infinite"),
        (_infinite, "2.weight holds NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_named(spoil: Callable[[dict[str, Tensor]], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    network = _network(1)
    save_weights(network.module, path)
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path)
    before = network.fingerprint()
    with pytest.raises(ModelError, match=message):
        load_weights(network, path)
    assert network.fingerprint() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not this", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{}"])
def test_corrupt_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_weights(_network(1), path)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(_network(1).module, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_weights(_network(1), path)
    with pytest.raises(ModelError, match="cannot read weights"):
        load_weights(_network(1), tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError):
        load_weights(_network(1), tmp_path)
