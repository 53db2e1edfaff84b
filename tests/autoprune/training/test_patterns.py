"""N:M: exactly N of every M in a row stay, those of highest score, and the file has as many zeros."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autoprune.errors import NumericalError, PlanError, SearchError
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.network.layers import Reshape
from autoprune.network.masked import masked
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.weight_masks import nonzero_weights
from autoprune.training.masks import full_masks, smaller_masks
from autoprune.training.patterns import Pattern, holds, pattern_masks
from autoprune.training.weight_scores import magnitude, weights_of


def every_kind() -> Network:
    """Layers with blocks of four inputs: plain, grouped and transposed, linear; the first and the depthwise without."""
    torch.manual_seed(0)
    b = NetworkBuilder("image", (3, 6, 6))
    x = b.add(nn.Conv2d(3, 8, 3), b.input, name="first")
    x = b.add(nn.Conv2d(8, 8, 3, padding=1, groups=8), x, name="depthwise")
    x = b.add(nn.Conv2d(8, 12, 3, padding=1, groups=2), x, name="grouped")
    x = b.add(nn.ConvTranspose2d(12, 8, 2), x, name="transposed")
    x = b.add(Reshape((-1, 200)), b.add(nn.ReLU(), x, name="relu"), name="flat")
    return b.finish(b.add(nn.Linear(200, 5), x, name="head"))


@pytest.mark.parametrize("text", ["2:4", "1:4", "3:4", "1:2"])
def test_exactly_n_of_every_m_stay_and_are_the_best(text: str) -> None:
    network, pattern = every_kind(), Pattern.parse(text)
    full = full_masks(network)
    scores = magnitude(network)
    masks = pattern_masks(network, full, scores, pattern)
    for name, mask in masks.items():
        if name in ("first", "depthwise"):
            assert bool(mask.all())
            continue
        assert mask.sum() * pattern.block == mask.numel() * pattern.kept
    assert holds(network, masks, pattern) == dict.fromkeys(("grouped", "transposed", "head"), True)
    assert not all(holds(network, full, pattern).values())
    kept, sizes = masks["grouped"], scores["grouped"]  # (12, 4, 3, 3)
    for out in range(12):  # by hand: each output and kernel position, the four inputs of its group
        for place in range(9):
            for first in range(0, 4, pattern.block):
                block = sizes.flatten(2)[out, first : first + pattern.block, place]
                stays = kept.flatten(2)[out, first : first + pattern.block, place]
                assert block[stays].min() >= block[~stays].max()
    across, values = masks["transposed"], scores["transposed"]  # inputs are its first dimension
    assert bool((across[:4].sum(0) == 4 * pattern.kept // pattern.block).all())
    inputs = slice(0, pattern.block)
    block, stays = values[inputs, 0, 0, 0], across[inputs, 0, 0, 0]
    assert block[stays].min() >= block[~stays].max()


@given(st.floats(0.05, 0.9), st.integers(0, 100))
def test_what_is_gone_stays_gone(share: float, seed: int) -> None:
    network = every_kind()
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(w.shape, generator=generator) for name, w in weights_of(network).items()}
    before = smaller_masks(full_masks(network), magnitude(network), share)
    masks = pattern_masks(network, before, scores, Pattern(2, 4))
    assert all(not (masks[name] & ~mask).any() for name, mask in before.items())
    assert all(holds(network, masks, Pattern(2, 4)).values())


def test_the_exported_file_has_the_zeros(tmp_path: Path) -> None:
    network = every_kind()
    masks = pattern_masks(network, full_masks(network), magnitude(network), Pattern(2, 4))
    export_onnx(masked(network, masks).module, tmp_path / "m.onnx", input_shape=network.input_shape)
    read = load_network(tmp_path / "m.onnx")
    assert list(nonzero_weights(read).values()) == [int(mask.sum()) for mask in masks.values()]
    assert nonzero_weights(read)["head"] == 500


def test_what_is_no_pattern_is_refused() -> None:
    network = every_kind()
    for text in ("4:4", "0:4", "2", "a:b", "2:4:8", "-1:4"):
        with pytest.raises(SearchError, match="pattern"):
            Pattern.parse(text)
    with pytest.raises(PlanError, match="no layer has a multiple of 7 inputs"):
        pattern_masks(network, full_masks(network), magnitude(network), Pattern(2, 7))
    nothing = magnitude(network) | {"head": torch.full((5, 200), torch.nan)}
    with pytest.raises(NumericalError, match="NaN"):
        pattern_masks(network, full_masks(network), nothing, Pattern(2, 4))
