"""What an agent sees of the layer it is about to prune: the 11 features of AMC."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.envs.layerwise_problem import LayerwiseProblem
from autoprune.network.network import Network

N_FEATURES = 11


class LayerFeatures:
    """The state of He et al. 2018 (arXiv 1802.03494), eq. 1, of a group's first producer layer, all in [0, 1].

    ========= ================================================= ===================================================
    feature   meaning                                           scaled by
    ========= ================================================= ===================================================
    t         index of the group                                number of groups - 1
    n, c      output and input channels of the layer            largest among the groups, each
    h, w      height and width of its input (linear: 1)         largest among the groups, each
    stride, k stride and kernel (the larger of two)             largest among the groups, each
    FLOPs[t]  MACs of the layer, unpruned                       MACs of the unpruned network
    reduced   MACs saved by the groups decided so far           MACs of the unpruned network
    rest      MACs left in the layers after this one            MACs of the unpruned network
    a_{t-1}   ratio removed of the group before (first: 0)      already in [0, 1)
    ========= ================================================= ===================================================

    `reduced` and `rest` count undecided groups as whole. Where single weights are pruned, weights that are not zero
    stand in for MACs.
    """

    def __init__(self, problem: LayerwiseProblem[object]) -> None:
        """Tabulate what does not change within an episode."""
        self._problem = problem
        self._full = np.array([width[-1] for width in problem.widths], dtype=np.int64)
        own = problem.layer_costs(self._full)
        self._whole = sum(own.values())
        geometry = np.array([_geometry(problem.network, name) for name in problem.producers], dtype=np.float64)
        n_groups = len(self._full)
        self._static = np.column_stack(
            [
                np.arange(n_groups) / max(1, n_groups - 1),
                geometry / geometry.max(axis=0),
                [own[name] / self._whole for name in problem.producers],
            ]
        )  # (n_groups, 8)
        layers = list(own)
        self._positions = [layers.index(name) for name in problem.producers]

    def at(self, kept: Sequence[int]) -> NDArray[np.float32]:
        """Return the features, ``(11,)``, of the first group not in `kept`, or of the last one when all are decided."""
        index = min(len(kept), len(self._full) - 1)
        counts = self._full.copy()
        counts[: len(kept)] = kept
        costs = list(self._problem.layer_costs(counts).values())
        reduced = 1 - sum(costs) / self._whole
        rest = sum(costs[self._positions[index] + 1 :]) / self._whole
        before = 1 - kept[-1] / int(self._full[len(kept) - 1]) if kept else 0.0
        features = np.array([*self._static[index], reduced, rest, before], dtype=np.float32)
        return features.clip(0, 1)


def _geometry(network: Network, name: str) -> tuple[int, int, int, int, int, int]:
    """Return n, c, h, w, stride and k of a layer."""
    node, layer = next((node, layer) for node, layer in network.nodes() if str(node.target) == name)
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        h, w = network.shapes[node.all_input_nodes[0].name][2:]
        return layer.out_channels, layer.in_channels, h, w, max(layer.stride), max(layer.kernel_size)
    assert isinstance(layer, nn.Linear), f"{name} produces no channels"
    return layer.out_features, layer.in_features, 1, 1, 1, 1
