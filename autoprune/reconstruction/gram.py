"""Gram matrices of what enters the layers behind channel groups: all that reconstruction needs to know of the data.

For patches X, ``(samples, features)``, a column of ones for the bias appended, G = X^T X / samples. What the unpruned
layer puts out is Y = X W^T, so C = X^T Y = G W^T needs no pass of its own.

Cost: one forward pass of the fit images, and per layer ``samples * features^2`` multiplications in float64. The error
of an entry of G falls with the square root of the samples; benchmarks/results/evaluation.md has accuracies by number
of images.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.errors import DatasetError, NumericalError
from autoprune.groups.channel_group import ChannelGroup
from autoprune.network.device import batch_on, default_device, ready
from autoprune.network.network import Network
from autoprune.reconstruction.patches import LINEAR_MAPS, n_features, n_maps, sample_patches

#: Images of the fit split, and output positions of each, that statistics are taken from.
IMAGES, POINTS = 2000, 16

#: Bytes that all Gram matrices of one pass may take; with more, several passes are made.
MEMORY_BYTES = 2 * 2**30

#: Bytes of the patches of one batch.
_PATCH_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """Second moments of one layer's inputs.

    Attributes:
        matrix: ``(maps, features + 1, features + 1)`` float64, the last row and column of the constant 1.
        samples: Patches that it is the mean of.

    """

    matrix: Tensor
    samples: int


@dataclass(frozen=True, slots=True)
class GramStatistics:
    """Gram matrices by layer.

    Attributes:
        grams: Of every layer that could be measured.
        unmeasured: Why each other layer that was asked for was not, by layer.
        settings: What the matrices depend on besides the network; for keys of caches.

    """

    grams: Mapping[str, Gram]
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def underdetermined(self) -> tuple[str, ...]:
        """Layers with fewer samples than features: their equations have many solutions."""
        return tuple(name for name, gram in self.grams.items() if gram.samples < gram.matrix.shape[1])

    @property
    def key(self) -> str:
        """Name what the matrices depend on besides the network."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()[:16]


def collect_grams(
    network: Network,
    groups: Sequence[ChannelGroup],
    images: Tensor,
    *,
    points: int = POINTS,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    device: torch.device | None = None,
) -> GramStatistics:
    """Measure every layer that consumes channels of `groups`, on the unpruned network.

    Memory: while measuring, at most `memory_bytes` of matrices (and the largest twice more while a batch is added), 128
    MiB of patches and the activations of one batch. Layers that do not fit in together are measured in several
    passes; one that does not fit in alone is left out. What is returned holds the matrices of all passes.

    Args:
        network: The unpruned network.
        groups: The decision groups.
        images: Of the fit split, ``(n, C, H, W)``, normalised.
        points: Output positions sampled per image and layer.
        seed: Of the sampling; each layer draws from a generator of its own.
        memory_bytes: Bound on the matrices held while measuring.
        device: Where to compute; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: No images.
        NumericalError: An input of a layer is not finite.

    """
    if len(images) == 0:
        raise DatasetError("Gram statistics need at least one image of the fit split, found none")
    layers = network.layers()
    measurable, unmeasured = {}, {}
    for name in dict.fromkeys(consumer for group in groups for consumer in group.consumers):
        reason = _why_not(layers[name], memory_bytes)
        if reason is None:
            measurable[name] = layers[name]
        else:
            unmeasured[name] = reason
    numbers = {name: index for index, name in enumerate(layers)}
    grams: dict[str, Gram] = {}
    for batch in _passes(measurable, memory_bytes):
        accumulators = {
            name: _Accumulator(name, points, torch.Generator().manual_seed(seed * 100_003 + numbers[name]))
            for name in batch
        }
        _observe(network, accumulators, images, device or default_device())
        grams |= {name: accumulator.gram() for name, accumulator in accumulators.items()}
    digest = hashlib.sha256(images.contiguous().cpu().numpy().tobytes()).hexdigest()
    settings: dict[str, int | str] = {"images": digest, "points": points, "seed": seed, "memory_bytes": memory_bytes}
    return GramStatistics({name: grams[name] for name in measurable}, unmeasured, settings)


def gram_bytes(layer: nn.Module) -> int:
    """Return the size of a layer's Gram matrix."""
    return 8 * n_maps(layer) * (n_features(layer) + 1) ** 2


def _why_not(layer: nn.Module, memory_bytes: int) -> str | None:
    """Tell why a layer cannot be measured; None if it can."""
    if not isinstance(layer, LINEAR_MAPS):
        return f"{type(layer).__name__} is not reconstructed"
    if gram_bytes(layer) > memory_bytes:
        return (
            f"its Gram matrix, {n_features(layer):,} features, takes {gram_bytes(layer) / 2**30:.1f} GiB "
            f"of {memory_bytes / 2**30:.1f} GiB allowed"
        )
    return None


def _passes(layers: Mapping[str, nn.Module], memory_bytes: int) -> list[list[str]]:
    """Deal layers out to passes that hold at most `memory_bytes` each, in order."""
    passes: list[list[str]] = []
    free = 0
    for name, layer in layers.items():
        if not passes or gram_bytes(layer) > free:
            passes.append([])
            free = memory_bytes
        passes[-1].append(name)
        free -= gram_bytes(layer)
    return passes


class _Accumulator:
    """Adds up one layer's Gram matrix over batches."""

    def __init__(self, name: str, points: int, generator: torch.Generator) -> None:
        self._name, self._points, self._generator = name, points, generator
        self._sum: Tensor | None = None
        self._samples = 0

    def add(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Forward pre-hook: sample patches of one batch."""
        inputs = args[0].detach()
        rows = n_features(layer) * n_maps(layer) * self._points * 8
        for part in torch.split(inputs, max(1, _PATCH_BYTES // rows)):
            patches, _ = sample_patches(layer, part, self._points, self._generator)
            product = gram_of(patches.double())
            self._sum = product if self._sum is None else self._sum + product
            self._samples += patches.shape[1]

    def gram(self) -> Gram:
        """Return the mean."""
        assert self._sum is not None
        if not bool(torch.isfinite(self._sum).all()):
            raise NumericalError(
                f"layer {self._name!r}: what enters it is not finite; check the images and the network's weights"
            )
        return Gram((self._sum / self._samples).cpu(), self._samples)


def gram_of(rows: Tensor) -> Tensor:
    """Return ``[X 1]^T [X 1]`` per map, ``(maps, features + 1, features + 1)``, for X of ``(maps, n, features)``."""
    sums = rows.sum(1)
    top = torch.cat([rows.transpose(1, 2) @ rows, sums[:, :, None]], dim=2)
    ones = torch.full((len(rows), 1), float(rows.shape[1]), dtype=rows.dtype, device=rows.device)
    return torch.cat([top, torch.cat([sums, ones], dim=1)[:, None]], dim=1)


def product_of(rows: Tensor, targets: Tensor) -> Tensor:
    """Return ``[X 1]^T Y`` per map, ``(maps, features + 1, outputs)``."""
    return torch.cat([rows.transpose(1, 2) @ targets, targets.sum(1)[:, None]], dim=1)


def _observe(network: Network, accumulators: Mapping[str, _Accumulator], images: Tensor, device: torch.device) -> None:
    """Run the images through the network with an accumulator before each layer."""
    module = ready(network.module, device)
    handles = [
        module.get_submodule(name).register_forward_pre_hook(partial(_hook, accumulator))
        for name, accumulator in accumulators.items()
    ]
    try:
        with torch.no_grad():
            for batch in torch.split(images, 250):
                module(batch_on(batch, device))
    finally:
        for handle in handles:
            handle.remove()


def _hook(accumulator: _Accumulator, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    accumulator.add(layer, args)
