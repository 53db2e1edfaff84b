"""Independent ways to know what the product claims: costs counted by hooks, random networks, random plans."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from autoprune.groups.channel_group import ChannelGroup
from autoprune.network.layers import Add, Concat, Mul, Permute, Reshape, Slice
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.plan import Plan


def macs_by_hooks(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Count multiply-accumulates of one image by watching what every layer really does."""
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            total += args[0].numel() * layer.weight[0].numel()
        else:
            assert isinstance(layer, nn.Linear)
            total += output.numel() * layer.weight.shape[1]

    watched = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in watched]
    with torch.no_grad():
        module(torch.zeros(1, *input_shape))
    for handle in handles:
        handle.remove()
    return total


def random_plan(groups: Sequence[ChannelGroup], seed: int, model_sha256: str = "", ratio: float | None = None) -> Plan:
    """Keep random units of every group: a random number of them, or all but a share of `ratio`."""
    generator = np.random.default_rng(seed)
    kept = {}
    for group in groups:
        count = int(generator.integers(1, len(group) + 1)) if ratio is None else max(1, round(len(group) * (1 - ratio)))
        kept[group.name] = tuple(sorted(generator.choice(len(group), count, replace=False).tolist()))
    return Plan(kept, model_sha256)


def randomise(network: Network, seed: int) -> Network:
    """Give every batch norm statistics and scales that are far from the identity, in place."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator) * 0.3
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.5
            layer.weight.data = torch.rand(layer.num_features, generator=generator) + 0.5
            layer.bias.data = torch.randn(layer.num_features, generator=generator) * 0.3
    return network


class _Maker:
    """Draws one random network, step by step."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.builder = NetworkBuilder("image", (3, 8, 8))
        self.count = 0

    def add(self, layer: nn.Module, *inputs: fx.Node) -> fx.Node:
        self.count += 1
        return self.builder.add(layer, *inputs, name=f"n{self.count}")

    def conv(self, x: fx.Node, into: int, out: int) -> fx.Node:
        kernel = self.draw(st.sampled_from([1, 3]))
        bias = self.draw(st.booleans())
        x = self.add(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias), x)
        if self.draw(st.booleans()):
            x = self.add(nn.BatchNorm2d(out), x)
        return self.add(self.draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Sigmoid]))(), x)

    def step(self, x: fx.Node, c: int) -> tuple[fx.Node, int]:
        kind = self.draw(
            st.sampled_from(
                ["conv", "residual", "concat", "depthwise", "grouped", "slice", "gate", "shuffle", "transposed"]
            )
        )
        if kind == "conv":
            out = self.draw(st.sampled_from([4, 6, 8]))
            return self.conv(x, c, out), out
        if kind == "residual":
            return self.add(Add(), x, self.conv(self.conv(x, c, 6), 6, c)), c
        if kind == "concat":
            out = self.draw(st.sampled_from([2, 4]))
            return self.add(Concat(1), x, self.conv(x, c, out)), c + out
        if kind == "depthwise":
            multiplier = self.draw(st.sampled_from([1, 2]))
            return self.add(nn.Conv2d(c, c * multiplier, 3, padding=1, groups=c), x), c * multiplier
        if kind == "grouped" and c % 2 == 0:
            return self.add(nn.Conv2d(c, 8, 3, padding=1, groups=2), x), 8
        if kind == "slice" and c >= 4:
            halves = self.add(Slice(1, 0, c // 2), x), self.add(Slice(1, c // 2, c), x)
            return self.add(Concat(1), self.conv(halves[0], c // 2, 4), halves[1]), 4 + c - c // 2
        if kind == "gate":
            gate = self.add(nn.AdaptiveAvgPool2d(1), x)
            gate = self.add(nn.Sigmoid(), self.add(nn.Conv2d(4, c, 1), self.conv(gate, c, 4)))
            return self.add(Mul(), x, gate), c
        if kind == "shuffle" and c % 2 == 0:
            x = self.add(Permute((0, 2, 1, 3, 4)), self.add(Reshape((-1, 2, c // 2, 8, 8)), x))
            return self.add(Reshape((-1, c, 8, 8)), x), c
        if kind == "transposed":
            return self.add(nn.ConvTranspose2d(c, 6, 3, padding=1), x), 6
        return x, c


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Small random networks of convolutions, additions, concatenations, groups, slices, gates and a flatten."""
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 1000)))
        maker = _Maker(draw)
        x, c = maker.conv(maker.builder.input, 3, 8), 8
        for _ in range(draw(st.integers(1, 6))):
            x, c = maker.step(x, c)
        if draw(st.booleans()):
            x, c = maker.add(nn.AvgPool2d(4), x), c * 4
        else:
            x = maker.add(nn.AdaptiveAvgPool2d(1), x)
        x = maker.add(nn.Linear(c, 5), maker.add(Reshape((-1, c)), x))
        return randomise(maker.builder.finish(x), 1)
