"""Channel groups on networks small enough to know the answer by hand."""

import torch
from torch import nn

from autoprune.groups.channel_group import ChannelGroup, find_groups
from autoprune.network.layers import Add, Concat, Constant, MatMul, Mul, Pad, Permute, Reshape, Slice
from autoprune.network.network import NetworkBuilder


def _by_name(builder: NetworkBuilder, output: object) -> dict[str, ChannelGroup]:
    groups = find_groups(builder.finish(output)).groups  # type: ignore[arg-type]  # an fx.Node
    return {group.name: group for group in groups}


def test_chain_through_flatten_cuts_a_block_of_columns_per_channel() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 5, 3, padding=1), b.input, name="a")
    x = b.add(nn.BatchNorm2d(5), x, name="bn")
    x = b.add(Reshape((-1, 80)), b.add(nn.ReLU(), x, name="relu"), name="flat")
    groups = _by_name(b, b.add(nn.Linear(80, 2), x, name="head"))
    assert len(groups["a"]) == 5
    assert groups["a"].frozen is None
    assert {(m.layer, m.role, m.channels_per_unit) for m in groups["a"].members} == {
        ("a", "output", 1), ("bn", "affine", 1), ("head", "input", 16),
    }  # fmt: skip
    assert groups["head"].frozen == "network output"


def test_padded_shortcut_ties_the_middle_of_the_wider_stream_to_the_narrower_one() -> None:
    b = NetworkBuilder("image", (3, 8, 8))
    narrow = b.add(nn.Conv2d(3, 4, 3, padding=1), b.input, name="narrow")
    hidden = b.add(nn.Conv2d(4, 6, 3, stride=2, padding=1), narrow, name="hidden")
    wide = b.add(nn.Conv2d(6, 8, 3, padding=1), hidden, name="wide")
    rows = b.add(Slice(2, 0, 8, 2), narrow, name="rows")
    small = b.add(Slice(3, 0, 8, 2), rows, name="columns")
    padded = b.add(Pad(((0, 0), (2, 2), (0, 0), (0, 0))), small, name="pad")
    joined = b.add(Add(), wide, padded, name="join")
    pooled = b.add(Reshape((-1, 8)), b.add(nn.AdaptiveAvgPool2d(1), joined, name="pool"), name="flat")
    groups = _by_name(b, b.add(nn.Linear(8, 2), pooled, name="head"))
    assert [(name, len(g), g.residual) for name, g in groups.items() if g.frozen is None] == [
        ("narrow", 4, True), ("hidden", 6, False), ("wide", 4, True),
    ]  # fmt: skip
    assert set(groups["narrow"].producers) == {"narrow", "wide"}
    assert set(groups["wide"].producers) == {"wide"}


def test_residual_streams_are_opt_in() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 4, 1), b.input, name="stem")
    y = b.add(nn.Conv2d(6, 4, 1), b.add(nn.Conv2d(4, 6, 1), x, name="inner"), name="outer")
    x = b.add(nn.Conv2d(4, 2, 1), b.add(Add(), x, y, name="add"), name="head")
    groups = find_groups(b.finish(x))
    assert [group.name for group in groups.prunable()] == ["inner"]
    assert [group.name for group in groups.prunable(include_residual=True)] == ["stem", "inner"]


def test_depthwise_follows_its_input_with_multiplier() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 4, 1), b.input, name="a")
    x = b.add(nn.Conv2d(4, 8, 3, padding=1, groups=4), x, name="depthwise")
    groups = _by_name(b, b.add(nn.Conv2d(8, 2, 1), x, name="head"))
    assert len(groups["a"]) == 4
    assert {(m.layer, m.role, m.channels_per_unit) for m in groups["a"].members} == {
        ("a", "output", 1), ("depthwise", "output", 2), ("head", "input", 2),
    }  # fmt: skip


def test_grouped_convolution_ties_equal_offsets() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 6, 1), b.input, name="a")
    x = b.add(nn.Conv2d(6, 4, 1, groups=2), x, name="grouped")
    groups = _by_name(b, b.add(nn.Conv2d(4, 2, 1), x, name="head"))
    assert len(groups["a"]) == 3
    assert len(groups["grouped"]) == 2


def test_channel_shuffle_ties_the_two_halves() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 6, 1), b.input, name="a")
    x = b.add(Permute((0, 2, 1, 3, 4)), b.add(Reshape((-1, 2, 3, 4, 4)), x, name="split"), name="swap")
    x = b.add(Reshape((-1, 6, 4, 4)), x, name="merge")
    groups = _by_name(b, b.add(nn.Conv2d(6, 2, 1), x, name="head"))
    assert len(groups["a"]) == 3
    assert groups["a"].frozen is None


def test_concat_keeps_branches_apart_and_gates_tie_both_sides() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    left = b.add(nn.Conv2d(3, 4, 1), b.input, name="left")
    right = b.add(nn.Conv2d(3, 5, 1), b.input, name="right")
    x = b.add(Concat(1), left, right, name="cat")
    gate = b.add(nn.Conv2d(9, 9, 1), b.add(nn.AdaptiveAvgPool2d(1), x, name="pool"), name="gate")
    x = b.add(Mul(), x, gate, name="scale")
    groups = _by_name(b, b.add(nn.Conv2d(9, 2, 1), x, name="head"))
    assert [(g.name, len(g), g.residual) for g in groups.values() if g.frozen is None] == [
        ("left", 4, False), ("right", 5, False),
    ]  # fmt: skip
    assert "gate" in groups["left"].producers


def test_per_channel_constants_are_cut_along() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 4, 1), b.input, name="a")
    x = b.add(Mul(), x, b.add(Constant(torch.rand(1, 4, 1, 1)), name="scale"), name="mul")
    x = b.add(Add(), x, b.add(Constant(torch.tensor(3.0)), name="three"), name="plus")
    groups = _by_name(b, b.add(nn.Conv2d(4, 2, 1), x, name="head"))
    assert groups["a"].frozen is None
    assert not groups["a"].residual
    assert ("scale", "affine", 1) in {(m.layer, m.role, m.channels_per_unit) for m in groups["a"].members}


def test_what_cannot_be_proved_is_frozen_with_its_reason() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.Conv2d(3, 4, 1), b.input, name="q")
    y = b.add(nn.Conv2d(3, 4, 1), b.input, name="k")
    z = b.add(nn.Conv2d(3, 4, 1), b.input, name="normed")
    groups = _by_name(
        b, b.add(Add(), b.add(MatMul(), x, y, name="mm"), b.add(nn.GroupNorm(2, 4), z, name="gn"), name="sum")
    )
    assert groups["q"].frozen == "mixed by MatMul 'mm'"
    assert groups["normed"].frozen == "mixed by GroupNorm 'gn'"
