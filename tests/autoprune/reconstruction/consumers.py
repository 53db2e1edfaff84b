"""Small networks with one pruned group and one consumer each, of every kind that is reconstructed."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder

SIDE = 9


def _network(consumer: nn.Module, *, middle: nn.Module | None = None, flat: bool = False) -> Network:
    """Convolution to 8 channels, ReLU, then `consumer`; its outputs go on to a head."""
    b = NetworkBuilder("image", (3, SIDE, SIDE))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 8, 3, padding=1), b.input, name="producer"), name="relu")
    if middle is not None:
        x = b.add(middle, x, name="middle")
    if flat:
        x = b.add(Reshape((-1, 8)), b.add(nn.AdaptiveAvgPool2d(1), x, name="pool"), name="flat")
        x = b.add(consumer, x, name="consumer")
        return b.finish(b.add(nn.Linear(6, 5), b.add(nn.ReLU(), x, name="relu2"), name="head"))
    x = b.add(nn.ReLU(), b.add(consumer, x, name="consumer"), name="relu2")
    x = b.add(nn.AdaptiveAvgPool2d(1), x, name="pool")
    return b.finish(b.add(nn.Linear(6, 5), b.add(Reshape((-1, 6)), x, name="flat"), name="head"))


#: How the consumer is made, by what it shows.
CONSUMERS: Mapping[str, Callable[[], Network]] = {
    "1x1": lambda: _network(nn.Conv2d(8, 6, 1)),
    "3x3": lambda: _network(nn.Conv2d(8, 6, 3, padding=1)),
    "3x3 strided": lambda: _network(nn.Conv2d(8, 6, 3, stride=2, padding=1)),
    "3x3 dilated": lambda: _network(nn.Conv2d(8, 6, 3, padding=2, dilation=2)),
    "1x3": lambda: _network(nn.Conv2d(8, 6, (1, 3), stride=(1, 2), padding=(0, 1))),
    "grouped": lambda: _network(nn.Conv2d(8, 6, 3, padding=1, groups=2)),
    "behind a depthwise layer": lambda: _network(nn.Conv2d(8, 6, 1), middle=nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    "linear": lambda: _network(nn.Linear(8, 6), flat=True),
}


def built(name: str) -> Network:
    """Return the network with reproducible weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CONSUMERS[name]()


def images(n: int = 40, seed: int = 0) -> Tensor:
    """Random images."""
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def consumer_inputs(network: Network, inputs: Tensor) -> Tensor:
    """What enters the consumer."""
    seen: list[Tensor] = []
    layer = network.module.get_submodule("consumer")
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        network.module(inputs)
    handle.remove()
    return seen[0]
