"""Hints: what a pruned network learns from inside the unpruned one (FitNets, Romero 2015, 1412.6550)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from autoprune.network.layers import ACTIVATIONS, Add

#: Outputs of layers by name; filled anew whenever the network runs.
Features = Mapping[str, Tensor]


@contextmanager
def compared(model: nn.Module, teacher: nn.Module | None, image: Tensor) -> Iterator[Callable[[], Tensor] | None]:
    """Give a function for the distance (:func:`distance`) at the last images that both networks ran on.

    Args:
        model: As in :func:`hint_layers`.
        teacher: Likewise.
        image: Likewise.

    Yields:
        The function, which gives a scalar; None where there is nothing to compare.

    """
    names = () if teacher is None else hint_layers(model, teacher, image)
    if teacher is None or not names:
        yield None
        return
    with watched(model, names) as own, watched(teacher, names) as other:
        yield lambda: distance(own, other)


def hint_layers(model: nn.Module, teacher: nn.Module, image: Tensor) -> tuple[str, ...]:
    """Return the layers at which a pruned network can be compared with the unpruned one, in the order they run.

    These are the ends of residual blocks: additions, or the activation behind one where nothing else reads it. Both
    networks have them by the same name; pruned inside its blocks alone, a network has them in the same width as well.

    Args:
        model: The pruned network, in eval mode; not changed.
        teacher: The unpruned network, in eval mode, on the same device; not changed.
        image: ``(1, C, H, W)``, where both networks are.

    Returns:
        Names of layers; none where a network is no graph, has no residual blocks, or they all lost channels.

    """
    if not isinstance(model, fx.GraphModule) or not isinstance(teacher, fx.GraphModule):
        return ()
    shared = set(_block_ends(teacher))
    names = [name for name in _block_ends(model) if name in shared]
    with torch.no_grad(), watched(model, names) as own, watched(teacher, names) as other:
        model(image)
        teacher(image)
        return tuple(name for name in names if own[name].shape == other[name].shape)


@contextmanager
def watched(module: nn.Module, names: Sequence[str]) -> Iterator[Features]:
    """Give the outputs of the layers called `names` as the network computes them; stop at the end."""
    features: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        features[name] = output

    handles = [
        module.get_submodule(name).register_forward_hook(lambda _layer, _inputs, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def distance(model: Features, teacher: Features) -> Tensor:
    """Return the mean, over the layers of `model`, of the squared error relative to the teacher's mean square."""
    errors = []
    for name, features in model.items():
        wanted = teacher[name].detach().float()  # what autocast left in bf16 has too few digits for a difference
        scale = wanted.square().mean().clamp(min=torch.finfo(wanted.dtype).tiny)
        errors.append(F.mse_loss(features.float(), wanted) / scale)
    return torch.stack(errors).mean()


def _block_ends(module: fx.GraphModule) -> list[str]:
    """Return the names of additions, or of the activations that alone read them."""
    names = []
    for node in module.graph.nodes:
        if node.op != "call_module" or not isinstance(module.get_submodule(str(node.target)), Add):
            continue
        end, readers = node, list(node.users)
        if len(readers) == 1 and readers[0].op == "call_module":
            follower = readers[0]
            if isinstance(module.get_submodule(str(follower.target)), ACTIVATIONS):
                end = follower
        names.append(str(end.target))
    return names
