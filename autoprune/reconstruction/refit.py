"""The last refit of a winner: layer by layer on the pruned network's own inputs, against the original's outputs.

Reconstruction from Gram statistics assumes that each layer still sees the unpruned network's inputs. Here the layers
are solved in execution order, each on what really reaches it, so errors of earlier layers are made good by later ones
(Luo, Wu & Lin 2017, 1707.06342, and He, Zhang & Sun 2017, 1707.06168, section 3.2 "whole model pruning"). A layer that
ends in an addition also takes over the error of the other branch.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from autoprune.errors import DatasetError
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.batchnorm import foldable_batchnorms
from autoprune.network.device import default_device, ready
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.reconstruction.gram import POINTS
from autoprune.reconstruction.least_squares import pull
from autoprune.reconstruction.patches import (
    LINEAR_MAPS,
    has_bias,
    n_features,
    n_maps,
    outputs_at,
    sample_patches,
    weight_matrix,
)
from autoprune.reconstruction.response import Response, fit
from autoprune.reconstruction.restate import restate_batchnorm
from autoprune.reconstruction.tail import Tail, gain_and_shift, owed, tail_behind

#: Bytes that the activations of both networks may take; fewer images are used where they do not fit.
MEMORY_BYTES = 3 * 2**30

#: Bytes that the patches of one layer may take; fewer positions are sampled where they do not fit.
_PATCH_BYTES = 2**30

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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Solve every convolution and linear layer of a pruned network anew, in place, in execution order.

    Each layer's weights become the least-squares fit of what the unpruned layer puts out, on patches of what reaches
    the pruned layer, with a pull towards the weights it has. Batch norms work with the statistics of the unpruned
    network meanwhile, because that is what is fitted; at the end they are restated in the pruned network's own. Linear
    algebra only: no labels and no gradient.

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
        progress: Called with the layers done and all layers; what it raises ends the refit, `module` is half done then.

    Returns:
        Names of the layers that could not be solved (transposed convolutions, singular equations): they stay.

    Raises:
        DatasetError: No images.

    """
    if len(images) == 0:
        raise DatasetError("a refit needs at least one image of the fit split, found none")
    n = min(len(images), max(1, memory_bytes // _bytes_per_image(network)))
    device = device or default_device()
    unsolved = _Run(network, groups, plan, module, device, points, seed, ridge).solve(images[:n], progress)
    if not plan.kept_units(groups).all():  # else nothing was pruned, and nothing refitted
        worker = ready(module, device)
        restate_batchnorm(worker, images[:n], device)
        if worker is not module:
            module.load_state_dict(worker.state_dict())
    return unsolved


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
            convolution: _batchnorm(module, norm) for norm, convolution in foldable_batchnorms(network).items()
        }
        self._wanted: dict[str, Tensor] = {}
        self._actual: dict[str, Tensor] = {}

    def solve(self, images: Tensor, progress: Callable[[int, int], None]) -> tuple[str, ...]:
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
            for done, node in enumerate(self._nodes):
                progress(done, len(self._nodes))
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
        tail = self._tail_behind(node, wanted)
        if tail.branch is not None:
            wanted = wanted + owed(self._wanted[tail.branch] - self._actual[tail.branch], tail.norm)
        norm = self._norm_after.get(str(node.target))
        patches, targets, branches = self._samples(layer, inputs, wanted, tail)
        weight, bias = weight_matrix(layer)
        solved = fit(
            patches,
            targets,
            torch.cat([weight, bias[:, :, None]], dim=2).transpose(1, 2).to(patches.device),
            ridge=pull(patches.shape[2], patches.shape[1]) if self._ridge is None else self._ridge,
            fit_bias=has_bias(layer) or norm is not None,
            response=_response(tail, norm, targets, branches),
        )
        if solved is None:
            return False
        weight, bias = solved[:, :-1].transpose(1, 2), solved[:, -1].flatten()
        assert isinstance(layer, LINEAR_MAPS)
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(bias)
        elif norm is not None:  # what a bias adds, the batch norm behind need not take away
            assert isinstance(norm.running_mean, Tensor)
            norm.running_mean.sub_(bias)
        return True

    def _tail_behind(self, node: fx.Node, wanted: Tensor) -> Tail:
        """Return what stands behind `node`, an addition only where its branch has the shape of `wanted`."""
        tail = tail_behind(node, self._original)
        if tail.branch is None:
            return tail
        branches = (self._wanted.get(tail.branch), self._actual.get(tail.branch))
        if all(branch is not None and branch.shape == wanted.shape for branch in branches):
            return tail
        return Tail(tail.norm, None, None)  # computed later, broadcast, or a pruned residual stream

    def _samples(
        self, layer: nn.Module, inputs: Tensor, wanted: Tensor, tail: Tail
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return patches, what the layer should put out there, and what the other branch of an addition adds there."""
        points = max(1, min(self._points, _PATCH_BYTES // (4 * n_maps(layer) * n_features(layer) * len(inputs))))
        branch = None if tail.branch is None or tail.bounds is None else self._actual[tail.branch]
        patches, targets, branches = [], [], []
        for start in range(0, len(inputs), _BATCH):
            at = slice(start, start + _BATCH)
            rows, positions = sample_patches(layer, inputs[at], points, self._generator)
            patches.append(rows)
            targets.append(outputs_at(layer, wanted[at], positions))
            if branch is not None:
                branches.append(outputs_at(layer, branch[at], positions))
        return torch.cat(patches, 1), torch.cat(targets, 1), torch.cat(branches, 1) if branches else None


def _batchnorm(module: fx.GraphModule, name: str) -> nn.BatchNorm2d:
    """Return a batch norm by its name."""
    norm = module.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def _response(tail: Tail, norm: nn.BatchNorm2d | None, targets: Tensor, branches: Tensor | None) -> Response | None:
    """Return what becomes of a layer's outputs behind the pruned network's batch norm; None without an activation.

    `targets` and `branches`, ``(maps, samples, outputs per map)``: as of :meth:`_Run._samples`.
    """
    if tail.bounds is None or (tail.norm is not None and norm is None):
        return None
    maps, _, outputs = targets.shape
    scale, shift = torch.ones(maps * outputs), torch.zeros(maps * outputs)
    if norm is not None:
        scale, shift = gain_and_shift(norm)
    scale, shift = (each.to(targets.device).view(maps, 1, outputs) for each in (scale, shift))
    return Response(scale, shift if branches is None else shift + branches, *tail.bounds)


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
