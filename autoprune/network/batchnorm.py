"""Batch norm put back where an exporter folded it, and folded again for export."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from autoprune.network.network import Network, NetworkBuilder, own_copy, shallow_copy

_SUFFIX = "_restored_bn"


def insert_batchnorm(network: Network) -> Network:
    """Return `network` with an identity batch norm after every convolution that has none; same function, same weights.

    Recalibration after pruning then works on any file. Which layers are added depends on the wiring alone, so a plan
    and weights made for the result fit whenever the same file is loaded again.
    """
    layers = network.layers()

    def visit(builder: NetworkBuilder, node: fx.Node, sources: list[fx.Node]) -> fx.Node:
        name, layer = str(node.target), layers[str(node.target)]
        made = builder.add(layer, *sources, name=name)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not _feeds_batchnorm(node, layers):
            made = builder.add(_identity(layer.out_channels), made, name=name + _SUFFIX)
        return made

    return _rebuilt(network, visit)


def is_restored(name: str) -> bool:
    """Tell whether the layer called `name` is a batch norm of :func:`insert_batchnorm`: its gamma was not trained."""
    return name.endswith(_SUFFIX)


def measure_batchnorm(network: Network, images: Tensor, *, batch_size: int = 256) -> Network:
    """Return `network` with the statistics of `images` in every batch norm that :func:`insert_batchnorm` put there.

    Mean and variance of what enters become the running statistics, gamma their square root and beta the mean: the same
    function as before, but recalibration on a pruned network now restores the statistics of the unpruned one.

    Args:
        network: A network; without restored batch norm it is returned as it is.
        images: Of the fit split, ``(n, C, H, W)``, normalised.
        batch_size: Largest number of images at a time.

    """
    names = [name for name in network.layers() if is_restored(name)]
    if not names:
        return network
    moments = entering_moments(network.module, names, torch.split(images, batch_size))
    layers = network.layers()
    measured: dict[str, nn.Module] = {}
    for name in names:
        norm = own_copy(layers[name])
        assert isinstance(norm, nn.BatchNorm2d)
        mean, variance = moments[name]
        norm.running_mean, norm.running_var = mean.float(), variance.float()
        norm.weight.data, norm.bias.data = (variance + norm.eps).sqrt().float(), mean.float()
        measured[name] = norm
    return Network(network.with_layers(measured), network.input_shape, network.shapes)


def entering_moments(
    module: nn.Module, names: Sequence[str], batches: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and variance per channel, ``(C,)`` float64, of what enters the layers called `names`.

    Args:
        module: The network, in eval mode; not changed.
        names: Layers whose input is ``(n, C, H, W)``; those that never run are left out.
        batches: Images, where the module is.

    """
    sums: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [module.get_submodule(name).register_forward_pre_hook(_observer(sums[name])) for name in names]
    try:
        with torch.no_grad():
            for batch in batches:
                module(batch)
    finally:
        for handle in handles:
            handle.remove()
    moments = {}
    for name, parts in sums.items():
        if parts:
            total, squares, count = torch.stack(parts).sum(0).unbind(0)
            mean = total / count
            moments[name] = mean, (squares / count - mean.square()).clamp(min=0)
    return moments


def fold_batchnorm(network: Network) -> Network:
    """Return `network` with every batch norm folded into the convolution before it, where that has no other use."""
    layers = network.layers()
    convolutions = foldable_batchnorms(network)
    norms = {convolution: norm for norm, convolution in convolutions.items()}

    def visit(builder: NetworkBuilder, node: fx.Node, sources: list[fx.Node]) -> fx.Node:
        name, layer = str(node.target), layers[str(node.target)]
        if name in convolutions:
            return sources[0]
        if name in norms:
            norm = layers[norms[name]]
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            assert isinstance(norm, nn.BatchNorm2d)
            layer = _folded(layer, norm)
        return builder.add(layer, *sources, name=name)

    return _rebuilt(network, visit)


def foldable_batchnorms(network: Network) -> dict[str, str]:
    """Return ``{batch norm: convolution}`` for every batch norm that folds into the convolution before it."""
    layers = network.layers()
    folded = {}
    for node, layer in network.nodes():
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if not isinstance(layer, nn.BatchNorm2d) or source is None or source.op != "call_module":
            continue
        if isinstance(layers[str(source.target)], nn.Conv2d | nn.ConvTranspose2d) and len(source.users) == 1:
            folded[str(node.target)] = str(source.target)
    return folded


def _rebuilt(network: Network, visit: Callable[[NetworkBuilder, fx.Node, list[fx.Node]], fx.Node]) -> Network:
    """Build `network` again; `visit` adds what stands for each node, given the new nodes of its inputs."""
    builder = NetworkBuilder(network.input_name, network.input_shape)
    made: dict[fx.Node, fx.Node] = {}
    for node in network.module.graph.nodes:
        if node.op == "placeholder":
            made[node] = builder.input
        elif node.op == "call_module":
            made[node] = visit(builder, node, [made[source] for source in node.args])
        else:
            return builder.finish(made[node.all_input_nodes[0]])
    raise AssertionError("a network ends in an output")


def _folded(layer: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> nn.Module:
    """Return the convolution that does what convolution and batch norm did; computed in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.detach().double() - norm.running_mean.double() * scale
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k): outputs of one group follow each other
        per_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
        factor = scale.view(layer.groups, 1, -1, 1, 1)
        weight = (per_group * factor).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, 1, 1, 1)
    bias = shift if layer.bias is None else shift + layer.bias.detach().double() * scale
    clone = shallow_copy(layer)
    assert isinstance(clone, nn.Conv2d | nn.ConvTranspose2d)
    clone.weight = nn.Parameter(weight.to(layer.weight.dtype))
    clone.bias = nn.Parameter(bias.to(layer.weight.dtype))
    return clone


def _observer(sums: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Make a hook that appends sum, sum of squares and count per channel of what enters, ``(3, C)`` float64."""

    def observe(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].detach().double()
        count = torch.full(
            values.shape[1:2], values.numel() // values.shape[1], dtype=torch.float64, device=values.device
        )
        sums.append(torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count]))

    return observe


def _feeds_batchnorm(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """Tell whether the only use of `node` is a batch norm."""
    users = list(node.users)
    return len(users) == 1 and isinstance(layers.get(str(users[0].target)), nn.BatchNorm2d)


def _identity(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm that changes nothing."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.data.fill_((1.0 + norm.eps) ** 0.5)
    return norm.eval()
