"""The last refit of a winner: layer by layer on the pruned network's own inputs, against the original's outputs.

Reconstruction from Gram statistics assumes that each layer still sees the unpruned network's inputs. Here the layers
are solved in execution order, each on what really reaches it, so errors of earlier layers are made good by later ones
(Luo, Wu & Lin 2017, 1707.06342, and He, Zhang & Sun 2017, 1707.06168, section 3.2 "whole model pruning"). A layer that
ends in an addition also takes over the error of the other branch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from autoprune.errors import DatasetError
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.batchnorm import foldable_batchnorms
from autoprune.network.device import default_device, ready
from autoprune.network.layers import Add
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.reconstruction.gram import POINTS, gram_of, product_of
from autoprune.reconstruction.least_squares import damped, pull
from autoprune.reconstruction.patches import LINEAR_MAPS, has_bias, outputs_at, sample_patches, weight_matrix

#: Bytes that the activations of both networks may take; fewer images are used where they do not fit.
MEMORY_BYTES = 2 * 2**30

#: Channels with a smaller gain, relative to the median of their batch norm, do not take over another branch's error.
_LEAST_GAIN = 0.05

#: Images of one forward call of a layer, and of one sampling of patches.
_BATCH = 250


def refit(
    network: Network,
    groups: ChannelGroups,
    plan: Plan,
    module: fx.GraphModule,
    images: Tensor,
    *,
    points: int = POINTS,
    seed: int = 0,
    ridge: float | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: torch.device | None = None,
) -> tuple[str, ...]:
    """Solve every convolution and linear layer of a pruned network anew, in place, in execution order.

    Each layer's weights become the least-squares fit of what the unpruned layer puts out, on patches of what reaches
    the pruned layer, with a pull towards the weights it has. Batch norms keep the statistics of the unpruned network,
    because that is what is fitted. Linear algebra only: no labels and no gradient.

    Memory: activations of both networks for all images, at most `memory_bytes`; where `images` are too many for that,
    the first ones are taken.

    Args:
        network: The unpruned network.
        groups: All its groups.
        plan: What was pruned.
        module: Made by :func:`autoprune.pruning.surgery.prune` for `plan`; may have been reconstructed.
        images: Of the fit split, ``(n, C, H, W)``, normalised.
        points: Output positions sampled per image and layer.
        seed: Of the sampling.
        ridge: Relative pull towards the weights the layer has; None for what fits features and samples.
        memory_bytes: Bound on activations.
        device: Where to compute; :func:`autoprune.network.device.default_device` if None.

    Returns:
        Names of the layers that could not be solved (transposed convolutions, singular equations): they stay.

    Raises:
        DatasetError: No images.

    """
    if len(images) == 0:
        raise DatasetError("a refit needs at least one image of the fit split, found none")
    n = min(len(images), max(1, memory_bytes // _bytes_per_image(network)))
    run = _Run(network, groups, plan, module, device or default_device(), points, seed, ridge)
    return run.solve(images[:n])


class _Run:
    """One refit: walks both networks node by node, the original's activations beside the pruned one's."""

    def __init__(
        self,
        network: Network,
        groups: ChannelGroups,
        plan: Plan,
        module: fx.GraphModule,
        device: torch.device,
        points: int,
        seed: int,
        ridge: float | None,
    ) -> None:
        self._groups, self._device, self._points, self._ridge = groups, device, points, ridge
        self._original, self._module = network.layers(), module
        self._nodes = [node for node in network.module.graph.nodes if node.op == "call_module"]
        self._input = network.input_name
        self._generator = torch.Generator().manual_seed(seed)
        self._alive = plan.kept_units(groups)
        self._norm_after = {
            convolution: module.get_submodule(norm) for norm, convolution in foldable_batchnorms(network).items()
        }
        self._wanted: dict[str, Tensor] = {}
        self._actual: dict[str, Tensor] = {}

    def solve(self, images: Tensor) -> tuple[str, ...]:
        """Refit every layer; return those that stayed."""
        images = images.to(self._device)
        if images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        self._wanted[self._input] = self._actual[self._input] = images
        last_use = {source.name: node for node in self._nodes for source in node.all_input_nodes}
        changed: set[str] = set()
        constant: set[str] = set()
        unsolved = []
        with torch.no_grad():
            for node in self._nodes:
                name, sources = str(node.target), [source.name for source in node.all_input_nodes]
                batched = [s not in constant for s in sources]
                if not any(batched):
                    constant.add(node.name)
                wanted = _call(self._original[name], [self._wanted[s] for s in sources], batched, self._device)
                layer = self._module.get_submodule(name)
                is_hit = any(s in changed for s in sources)
                if is_hit and isinstance(layer, LINEAR_MAPS):
                    if not self._fit(node, layer, self._actual[sources[0]], wanted):
                        unsolved.append(name)
                elif is_hit and isinstance(layer, nn.ConvTranspose2d):
                    unsolved.append(name)
                if is_hit or self._is_cut(name):
                    changed.add(node.name)
                    actual = _call(layer, [self._actual[s] for s in sources], batched, self._device)
                else:
                    actual = wanted
                self._wanted[node.name], self._actual[node.name] = wanted, actual
                for source in sources:
                    if last_use[source] is node:
                        self._wanted.pop(source, None)
                        self._actual.pop(source, None)
        return tuple(unsolved)

    def _is_cut(self, name: str) -> bool:
        """Tell whether the layer lost outputs."""
        channels = self._groups.layers[name].output
        return channels is not None and not bool(self._alive[channels.ids].all())

    def _fit(self, node: fx.Node, layer: nn.Module, inputs: Tensor, wanted: Tensor) -> bool:
        """Give `layer` the least-squares weights for `wanted`, the original's output; False where there are none."""
        channels = self._groups.layers[str(node.target)].output
        if channels is not None and self._is_cut(str(node.target)):
            kept = torch.from_numpy(np.flatnonzero(self._alive[channels.ids])).to(wanted.device)
            wanted = wanted.index_select(channels.dim, kept)
        debt = self._debt(node)
        if debt is not None and debt.shape == wanted.shape:  # else a branch that is broadcast
            wanted = wanted + debt
        gram: Tensor | None = None
        target: Tensor | None = None
        samples = 0
        for x, y in zip(torch.split(inputs, _BATCH), torch.split(wanted, _BATCH), strict=True):
            patches, positions = sample_patches(layer, x, self._points, self._generator)
            values = outputs_at(layer, y, positions)
            rows = patches.double()
            squares, products = gram_of(rows), product_of(rows, values.double())
            gram = squares if gram is None else gram + squares
            target = products if target is None else target + products
            samples += patches.shape[1]
        assert gram is not None
        assert target is not None
        norm = self._norm_after.get(str(node.target))
        fit_bias = has_bias(layer) or norm is not None
        ridge = pull(gram.shape[1] - 1, samples) if self._ridge is None else self._ridge
        solution = _solve(layer, (gram / samples).cpu(), (target / samples).cpu(), fit_bias, ridge)
        if solution is None:
            return False
        weight, bias = solution
        assert isinstance(layer, LINEAR_MAPS)
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(bias)
        elif norm is not None:  # what a bias adds, the batch norm behind need not take away
            assert isinstance(norm.running_mean, Tensor)
            norm.running_mean.sub_(bias)
        return True

    def _debt(self, node: fx.Node) -> Tensor | None:
        """Return what the other branch of an addition behind `node` lacks, in units of the layer's own output."""
        norm: nn.BatchNorm2d | None = None
        user = _only_user(node)
        if user is not None and isinstance(layer := self._original.get(str(user.target)), nn.BatchNorm2d):
            norm, node, user = layer, user, _only_user(user)
        if user is None or not isinstance(self._original.get(str(user.target)), Add):
            return None
        others = [source.name for source in user.all_input_nodes if source is not node]
        if len(others) != 1 or others[0] not in self._actual:
            return None
        wanted, actual = self._wanted[others[0]], self._actual[others[0]]
        if wanted.shape != actual.shape:
            return None  # a pruned residual stream: the other branch has other channels
        if norm is None:
            return wanted - actual
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        useful = scale.abs() > _LEAST_GAIN * scale.abs().median()  # a channel that hardly gets through cannot pay
        safe = torch.where(useful, 1 / torch.where(useful, scale, 1.0), 0.0)
        return (wanted - actual) * safe.to(wanted.device).view(1, -1, 1, 1)


def _solve(
    layer: nn.Module, gram: Tensor, target: Tensor, fit_bias: bool, ridge: float
) -> tuple[Tensor, Tensor] | None:
    """Solve ``V = argmin |X V^T - Y|^2`` with a pull to the present weights.

    Args:
        layer: The layer, not changed.
        gram: ``(maps, features + 1, features + 1)``, float64.
        target: ``(maps, features + 1, outputs per map)``, float64.
        fit_bias: Whether there is a bias to be fitted; else it stays.
        ridge: Relative pull.

    Returns:
        Weights, ``(outputs, features)``, and biases, ``(outputs,)``; None where the equations are singular.

    """
    weight, bias = weight_matrix(layer)
    present = torch.cat([weight, bias[:, :, None]], dim=2).transpose(1, 2)
    size = gram.shape[1] if fit_bias else gram.shape[1] - 1
    matrix = torch.stack([damped(each, ridge) for each in gram])[:, :size, :size]
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        return None
    solved = present.clone()
    solved[:, :size] += torch.cholesky_solve((target - gram @ present)[:, :size], factor)
    if not bool(torch.isfinite(solved).all()):
        return None
    return solved[:, :-1].transpose(1, 2).flatten(0, 1), solved[:, -1].flatten()


def _call(layer: nn.Module, inputs: Sequence[Tensor], batched: Sequence[bool], device: torch.device) -> Tensor:
    """Run one layer on all images, a batch at a time; what comes from constants alone is not `batched`."""
    layer = ready(layer, device)
    if not any(batched):
        result: Tensor = layer(*inputs)
        return result
    n = next(len(each) for each, split in zip(inputs, batched, strict=True) if split)
    parts = [
        layer(*(each[start : start + _BATCH] if split else each for each, split in zip(inputs, batched, strict=True)))
        for start in range(0, n, _BATCH)
    ]
    return torch.cat(parts)


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that uses `node`, or None."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_module" else None


def _bytes_per_image(network: Network) -> int:
    """Return the activations that are alive at once for one image, of both networks, at their largest."""
    shapes: Mapping[str, Sequence[int]] = network.shapes
    nodes = list(network.module.graph.nodes)
    last_use = {source.name: index for index, node in enumerate(nodes) for source in node.all_input_nodes}
    sizes = {node.name: 4 * int(np.prod(shapes.get(node.name, network.input_shape))) for node in nodes}
    alive: dict[str, int] = {}
    largest = 1
    for index, node in enumerate(nodes):
        alive[node.name] = sizes[node.name]
        largest = max(largest, sum(alive.values()))
        for source in node.all_input_nodes:
            if last_use[source.name] == index:
                alive.pop(source.name, None)
    return 2 * largest
