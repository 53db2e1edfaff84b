"""Cost of a pruned network as a function of its channel counts alone: no network is built.

One definition each, used everywhere:

* **macs** - multiply-accumulates of convolution, transposed convolution and linear layers for one image (as AMC and
  NetAdapt count; batch norm, activations, pooling, biases and products of two activations count nothing).
* **params** - values stored in the deployed network: weights and biases with each batch norm folded into the
  convolution before it, as in the exported file; a batch norm that cannot be folded counts its four vectors.
* **bytes** - size of the exported ONNX file: ``4 * params`` (float32) and the description of the unpruned graph; that
  of a pruned one is never larger, so the file never exceeds this.
* **latency** - predicted from a latency table, in nanoseconds, where there is one: see
  :mod:`autoprune.costs.latency_cost`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from autoprune.costs.latency_cost import LatencyCost
from autoprune.costs.pairwise_cost import PairwiseCost
from autoprune.costs.quadratic_form import QuadraticForm
from autoprune.costs.quantities import LATENCY
from autoprune.costs.sides import Counts, Side, SidePart
from autoprune.formats.onnx_export import onnx_size
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, is_depthwise
from autoprune.groups.channels import Channels
from autoprune.network.batchnorm import foldable_batchnorms
from autoprune.network.layers import Constant
from autoprune.network.network import Network


@dataclass(frozen=True, slots=True)
class CostModel:
    """Costs of all policies over decision groups; exact integers. All but latency never decrease in any kept count.

    Attributes:
        sizes: Units of the decision groups, in the order of the kept counts.
        layers: Names of the layers that cost something.
        latency: Latency on a device; None where no table was given.

    """

    sizes: tuple[int, ...]
    layers: tuple[str, ...]
    _into: Side
    _out: Side
    _macs_per_pair: Counts
    _params_per_pair: Counts
    _params_per_output: Counts
    _fixed_params: int
    _description_bytes: int
    latency: LatencyCost | None = None

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return ``{quantity: cost}`` for kept units per group, ``(n_groups,)``."""
        into, out = self._channels(kept)
        params = int((self._params_per_pair * into * out + self._params_per_output * out).sum()) + self._fixed_params
        cost = {
            "macs": int((self._macs_per_pair * into * out).sum()),
            "params": params,
            "bytes": 4 * params + self._description_bytes,
        }
        return cost if self.latency is None else {**cost, LATENCY: int(self.latency.at(kept))}

    def with_latency(self, latency: LatencyCost) -> "CostModel":
        """Return the same costs and `latency`."""
        return replace(self, latency=latency)

    def quadratic(self) -> dict[str, QuadraticForm]:
        """Return ``{quantity: form}``, all costs but latency as polynomials: a layer multiplies inputs by outputs."""
        nothing = np.zeros_like(self._params_per_output)
        macs = self._form(self._macs_per_pair, nothing, 0)
        params = self._form(self._params_per_pair, self._params_per_output, self._fixed_params)
        size = QuadraticForm(4 * params.constant + self._description_bytes, 4 * params.linear, 4 * params.pairs)
        return {"macs": macs, "params": params, "bytes": size}

    def pairwise(self, widths: Sequence[Counts], *, only: Collection[str] | None = None) -> dict[str, PairwiseCost]:
        """Return ``{quantity: tables}``, the same costs over the allowed `widths`, per group ``(n_widths,)``.

        `only` names the quantities wanted, all of them if None: tables of wide groups take megabytes.
        """
        tables = {
            quantity: PairwiseCost.of_quadratic(form, widths)
            for quantity, form in self.quadratic().items()
            if only is None or quantity in only
        }
        if self.latency is not None and (only is None or LATENCY in only):
            tables[LATENCY] = self.latency.pairwise(widths)
        return tables

    def layer_macs(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return MACs per layer for kept units per group, ``(n_groups,)``."""
        into, out = self._channels(kept)
        return dict(zip(self.layers, (self._macs_per_pair * into * out).tolist(), strict=True))

    def to_arrays(self) -> tuple[dict[str, Counts], dict[str, Any]]:
        """Return all of it as arrays of whole numbers, by name, and as JSON-ready data: the same costs in a file."""
        arrays = {
            "into.per_unit": self._into.per_unit,
            "into.offset": self._into.offset,
            "out.per_unit": self._out.per_unit,
            "out.offset": self._out.offset,
            "macs_per_pair": self._macs_per_pair,
            "params_per_pair": self._params_per_pair,
            "params_per_output": self._params_per_output,
        }
        data: dict[str, Any] = {
            "sizes": list(self.sizes),
            "layers": list(self.layers),
            "fixed_params": self._fixed_params,
            "description_bytes": self._description_bytes,
            "latency": None,
        }
        if self.latency is not None:
            latency, data["latency"] = self.latency.to_arrays()
            arrays |= {f"latency.{name}": array for name, array in latency.items()}
        return arrays, data

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Counts], data: Mapping[str, Any]) -> "CostModel":
        """Return the model of which :meth:`to_arrays` made these; a KeyError names what is missing."""
        latency = {
            name.removeprefix("latency."): array for name, array in arrays.items() if name.startswith("latency.")
        }
        return cls(
            tuple(data["sizes"]),
            tuple(data["layers"]),
            Side(arrays["into.per_unit"], arrays["into.offset"]),
            Side(arrays["out.per_unit"], arrays["out.offset"]),
            arrays["macs_per_pair"],
            arrays["params_per_pair"],
            arrays["params_per_output"],
            data["fixed_params"],
            data["description_bytes"],
            None if data["latency"] is None else LatencyCost.from_arrays(latency, data["latency"]),
        )

    def full(self) -> Counts:
        """Return the kept counts of the unpruned network, ``(n_groups,)``."""
        return np.array(self.sizes, dtype=np.int64)

    def _form(self, per_pair: Counts, per_output: Counts, fixed: int) -> QuadraticForm:
        """Multiply out the sum over all layers of ``per_pair * inputs * outputs + per_output * outputs``."""
        into, out = self._into, self._out
        per_out_unit = per_pair * into.offset + per_output
        pairs = (into.per_unit * per_pair) @ out.per_unit.T
        return QuadraticForm(
            int(per_out_unit @ out.offset) + fixed,
            out.per_unit @ per_out_unit + into.per_unit @ (per_pair * out.offset),
            np.triu(pairs) + np.tril(pairs, -1).T,
        )

    def _channels(self, kept: Sequence[int] | Counts) -> tuple[Counts, Counts]:
        counts = np.asarray(kept, dtype=np.int64)
        assert counts.shape == (len(self.sizes),), f"expected {len(self.sizes)} kept counts, found {counts.shape}"
        return self._into.at(counts), self._out.at(counts)


@dataclass(frozen=True, slots=True)
class _Row:
    """What one layer contributes per pair of channels, per output channel, and which channels it has."""

    layer: str
    macs_per_pair: int
    params_per_pair: int
    params_per_output: int
    into: SidePart
    out: SidePart


def cost_model(
    network: Network, all_groups: ChannelGroups, groups: Sequence[ChannelGroup], *, opset: int = 18
) -> CostModel:
    """Build the cost model of `network` for the decision `groups`; all other groups stay whole.

    `opset` is that of the file to be exported; it matters for bytes only.
    """
    rows = _rows(network, all_groups)
    whole = CostModel(
        tuple(len(group) for group in groups),
        tuple(row.layer for row in rows),
        Side.of([row.into for row in rows], groups, all_groups.n_units),
        Side.of([row.out for row in rows], groups, all_groups.n_units),
        np.array([row.macs_per_pair for row in rows], dtype=np.int64),
        np.array([row.params_per_pair for row in rows], dtype=np.int64),
        np.array([row.params_per_output for row in rows], dtype=np.int64),
        _fixed_params(network, all_groups),
        0,
    )
    file_bytes = onnx_size(network.module, input_shape=network.input_shape, opset=opset)
    return replace(whole, _description_bytes=file_bytes - whole.cost(whole.full())["bytes"])


def _rows(network: Network, all_groups: ChannelGroups) -> list[_Row]:
    """One row per layer whose cost depends on channel counts."""
    folded = foldable_batchnorms(network)
    rows: list[_Row] = []
    for node, layer in network.nodes():
        name = str(node.target)
        channels, shape = all_groups.layers[name], network.shapes[node.name]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            has_bias = layer.bias is not None or name in folded.values()
            rows.append(
                _convolution_row(name, layer, network.shapes[node.all_input_nodes[0].name], shape, has_bias, all_groups)
            )
        elif isinstance(layer, nn.Linear):
            into, out = (channels.inputs[0], layer.in_features), (channels.output, layer.out_features)
            rows.append(_Row(name, math.prod(shape[:-1]), 1, int(layer.bias is not None), into, out))
        elif isinstance(layer, nn.BatchNorm2d) and name not in folded:
            rows.append(_Row(name, 0, 0, 4, (None, 0), (channels.output, layer.num_features)))
        elif isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
            rows.append(_Row(name, 0, 0, 1, (None, 0), (channels.output, layer.num_parameters)))
        elif isinstance(layer, Constant) and channels.output is not None:
            per_channel = layer.value.numel() // layer.value.shape[channels.output.dim]
            rows.append(_Row(name, 0, 0, per_channel, (None, 0), (channels.output, len(channels.output.ids))))
    return rows


def _convolution_row(
    name: str,
    layer: nn.Conv2d | nn.ConvTranspose2d,
    source_shape: tuple[int, ...],
    shape: tuple[int, ...],
    has_bias: bool,
    all_groups: ChannelGroups,
) -> _Row:
    """Row of a convolution; a transposed one multiplies once per input position."""
    channels = all_groups.layers[name]
    kernel = math.prod(layer.kernel_size)
    planes, _, *plane = shape if isinstance(layer, nn.Conv2d) else source_shape
    positions = planes * math.prod(plane)  # an image counts several times where its channels were moved to the batch
    into: SidePart = (channels.inputs[0], layer.in_channels)
    if is_depthwise(layer):
        into = (None, 1)
    elif layer.groups > 1:
        per_group = layer.in_channels // layer.groups
        source = channels.inputs[0]
        into = (None if source is None else Channels(1, source.ids[:per_group]), per_group)
    return _Row(name, positions * kernel, kernel, int(has_bias), into, (channels.output, layer.out_channels))


def _fixed_params(network: Network, all_groups: ChannelGroups) -> int:
    """Parameters of layers that never change: layer and group norms, single slopes, constants without channels."""
    fixed = 0
    for name, layer in network.layers().items():
        if isinstance(layer, Constant) and all_groups.layers[name].output is None:
            fixed += layer.value.numel()
        if isinstance(layer, nn.LayerNorm | nn.GroupNorm) or (
            isinstance(layer, nn.PReLU) and layer.num_parameters == 1
        ):
            fixed += sum(parameter.numel() for parameter in layer.parameters())
    return fixed
