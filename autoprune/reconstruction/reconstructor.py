"""Reconstruction of a candidate: every layer that lost inputs gets the best weights for those it keeps."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.batchnorm import foldable_batchnorms
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.reconstruction.gram import GramStatistics
from autoprune.reconstruction.least_squares import pull, solve_kept
from autoprune.reconstruction.patches import LINEAR_MAPS, features_of, has_bias, n_maps, weight_matrix

#: Bytes of solved weights remembered between candidates, which often share layers.
CACHE_BYTES = 256 * 2**20


class _Weights(NamedTuple):
    """Solved weights of all outputs: ``(outputs, inputs per map, ...)`` and ``(outputs,)``, float32."""

    weight: Tensor
    bias: Tensor
    singular: bool


class Reconstructor:
    """Solves the layers behind pruned groups from Gram statistics of the unpruned network.

    What was solved is remembered by layer and kept inputs, so a candidate pays only for the layers in which it differs
    from those before; answers do not depend on what is remembered. One instance belongs to one thread at a time.
    """

    def __init__(
        self, network: Network, groups: ChannelGroups, statistics: GramStatistics, *, ridge: float | None = None
    ) -> None:
        """Prepare the layers that `statistics` measured.

        Args:
            network: The unpruned network.
            groups: All its groups.
            statistics: Gram matrices of the layers to reconstruct.
            ridge: Relative pull towards the trained weights; None for one that fits features and samples.

        """
        self._groups, self._statistics, self._ridge = groups, statistics, ridge
        self._layers = {name: network.layers()[name] for name in statistics.grams}
        self._before_norm = frozenset(foldable_batchnorms(network).values())
        self._solved: OrderedDict[tuple[str, bytes], _Weights] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is remembered."""
        return {**vars(self), "_solved": OrderedDict(), "_bytes": 0}

    def apply(self, module: fx.GraphModule, plan: Plan) -> tuple[str, ...]:
        """Replace weights of `module`, which :func:`autoprune.pruning.surgery.prune` made for `plan`, in place.

        Returns:
            Names of the layers whose equations were singular: they keep their trained weights.

        """
        alive = plan.kept_units(self._groups)
        singular = []
        for name, layer in self._layers.items():
            source = self._groups.layers[name].inputs[0]
            if source is None or alive[source.ids].all():
                continue
            solved = self._solve(name, layer, alive[source.ids])
            target = module.get_submodule(name)
            channels = self._groups.layers[name].output
            rows = torch.arange(len(solved.bias)) if channels is None else _positions(alive[channels.ids])
            if solved.singular:
                singular.append(name)
                continue
            assert isinstance(target, LINEAR_MAPS)
            with torch.no_grad():
                target.weight = _parameter(solved.weight[rows], target.weight)
                if target.bias is not None:
                    target.bias = _parameter(solved.bias[rows], target.bias)
        return tuple(singular)

    def _solve(self, name: str, layer: nn.Module, kept: NDArray[np.bool_]) -> _Weights:
        """Return the layer's weights for the `kept` inputs, ``(inputs,)``, solved now or before."""
        key = (name, np.packbits(kept).tobytes())
        if key in self._solved:
            self._solved.move_to_end(key)
            return self._solved[key]
        solved = self._solved[key] = self._solve_anew(name, layer, kept)
        self._bytes += solved.weight.nbytes
        while self._bytes > CACHE_BYTES and len(self._solved) > 1:
            self._bytes -= self._solved.popitem(last=False)[1].weight.nbytes
        return solved

    def _solve_anew(self, name: str, layer: nn.Module, kept: NDArray[np.bool_]) -> _Weights:
        """Solve each of the layer's maps."""
        weight, bias = weight_matrix(layer)
        columns: list[list[Tensor]] = [[] for _ in range(n_maps(layer))]
        for position in np.flatnonzero(kept).tolist():
            index, features = features_of(layer, position)
            columns[index].append(features)
        fit_bias = has_bias(layer) or name in self._before_norm
        measured = self._statistics.grams[name]
        gram = measured.matrix
        ridge = pull(weight.shape[2], measured.samples) if self._ridge is None else self._ridge
        solutions = [
            solve_kept(gram[i], weight[i], bias[i], torch.cat(columns[i]), fit_bias=fit_bias, ridge=ridge)
            for i in range(len(columns))
        ]
        rows = torch.cat([solution.weight for solution in solutions]).float()
        kernel = layer.kernel_size if isinstance(layer, nn.Conv2d) else ()
        return _Weights(
            rows.reshape(len(rows), -1, *kernel),
            torch.cat([solution.bias for solution in solutions]).float(),
            any(solution.singular for solution in solutions),
        )


def _positions(mask: NDArray[np.bool_]) -> Tensor:
    """Return where `mask` is true, int64."""
    return torch.from_numpy(np.flatnonzero(mask))


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    """Return `value` as a parameter of its own, on the device of `like`, with its gradient switch."""
    assert value.shape == like.shape, f"expected weights {tuple(like.shape)}, solved {tuple(value.shape)}"
    return nn.Parameter(value.to(like.device, like.dtype).clone(), requires_grad=like.requires_grad)
