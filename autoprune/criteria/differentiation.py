"""Derivatives of the loss on the images of a criterion: all that the gradient family is made of. In float64."""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.members import producers
from autoprune.network.device import default_device
from autoprune.network.logits import final_softmax
from autoprune.network.network import Network, own_copy

#: The share of all images that a minibatch is, and a value per weight of its mean loss, by layer.
Batch = tuple[float, dict[str, Tensor]]


class DoubleNetwork:
    """A copy of a network in float64 and eval mode, on the default device, whose weights can be differentiated by.

    A softmax at its end is left out: the copy returns logits.

    Attributes:
        module: The copy.
        weights: Weights of all convolutions and linear layers, by layer.

    """

    def __init__(self, network: Network) -> None:
        layers: dict[str, nn.Module] = {
            name: _Hardsigmoid()
            if isinstance(layer, nn.Hardsigmoid)
            else own_copy(layer).double().requires_grad_(False)
            for name, layer in network.layers().items()
        }
        softmax = final_softmax(network.module)
        if softmax is not None:
            layers[softmax] = nn.Identity()
        self.module: fx.GraphModule = network.with_layers(layers)
        self.module.to(default_device()).eval()
        self.weights: dict[str, nn.Parameter] = {}
        for name, _ in producers(network):
            self.weights[name] = self.module.get_submodule(name).get_parameter("weight")
            self.weights[name].requires_grad_()

    def gradients(self, value: Tensor, *, again: bool = False) -> dict[str, Tensor]:
        """Return the derivatives of a number by all weights, by layer; `again` if they will be differentiated too."""
        found = torch.autograd.grad(value, list(self.weights.values()), create_graph=again, materialize_grads=True)
        return dict(zip(self.weights, found, strict=True))


class _Hardsigmoid(nn.Module):
    """The hard sigmoid by a function that can be differentiated twice; PyTorch's own cannot."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``min(max(x + 3, 0), 6) / 6``."""
        return F.relu6(x + 3) / 6


def minibatches(data: CriterionData, *, size: int | None = None) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield the share of all images, images float64 and labels of each minibatch, on the default device."""
    assert data.images is not None, "checked"
    assert data.labels is not None, "checked"
    device, size = default_device(), size or data.batch_size
    for images, labels in zip(torch.split(data.images, size), torch.split(data.labels, size), strict=True):
        yield len(images) / len(data.images), images.to(device, torch.float64), labels.to(device)


def batch_gradients(network: Network, data: CriterionData, *, size: int | None = None) -> Iterator[Batch]:
    """Yield, per minibatch, its share of all images and the derivatives of its mean cross entropy by all weights."""
    double = DoubleNetwork(network)
    for share, images, labels in minibatches(data, size=size):
        yield share, double.gradients(F.cross_entropy(double.module(images), labels))


def mean_gradients(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return the derivatives of the mean cross entropy over all images by all weights, by layer."""
    return mean_over(batch_gradients(network, data))


def mean_over(batches: Iterator[Batch]) -> dict[str, Tensor]:
    """Return the mean over images of values that are means over minibatches, on the CPU, by layer."""
    total: dict[str, Tensor] = {}
    for share, values in batches:
        for name, value in values.items():
            part = share * value.detach().cpu()
            total[name] = total[name] + part if name in total else part
    return total


def hessian_products(network: Network, data: CriterionData, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the Hessian of the mean cross entropy over all images times a vector, by double backward, by layer.

    Exact: the Hessian is the mean of those of the minibatches, and so is its product.
    """
    double = DoubleNetwork(network)
    directions = {name: vector.to(default_device()) for name, vector in vectors.items()}

    def products() -> Iterator[Batch]:
        for share, images, labels in minibatches(data):
            first = double.gradients(F.cross_entropy(double.module(images), labels), again=True)
            along = torch.stack([(first[name] * directions[name]).sum() for name in first]).sum()
            yield share, double.gradients(along)

    return mean_over(products())


def gate_gradients(network: Network, data: CriterionData, places: Sequence[str]) -> Iterator[Batch]:
    """Yield, per minibatch, the derivatives of its mean cross entropy by gates that multiply what layers put out.

    A gate is 1 for one channel of one layer: its derivative is the sum of activation times gradient over images and
    positions. The values have the shape of one image's output.
    """
    double = DoubleNetwork(network)
    outputs: dict[str, Tensor] = {}

    def remember(name: str) -> None:
        def hook(_: nn.Module, args: object, output: Tensor) -> None:
            outputs[name] = output

        double.module.get_submodule(name).register_forward_hook(hook)

    for name in places:
        remember(name)
    for share, images, labels in minibatches(data):
        loss = F.cross_entropy(double.module(images), labels)
        found = torch.autograd.grad(loss, [outputs[name] for name in places])
        yield share, {name: (outputs[name].detach() * g).sum(0) for name, g in zip(places, found, strict=True)}
