"""Canonical networks written as ONNX, directly from their layers (docs/adr/0001-own-onnx-writer.md)."""

import copy
import os
import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, helper
from torch import fx

from autoprune.errors import ExportError, UnsupportedOperatorError
from autoprune.formats._onnx_write import Call, GraphParts
from autoprune.formats._onnx_write_layers import WRITERS
from autoprune.network.batchnorm import fold_batchnorm
from autoprune.network.layers import Constant
from autoprune.network.network import Network, Shape, network_of

#: Operator sets that can be written.
OPSETS = range(13, 21)

#: Files may not be larger: the format's own limit for a file that holds its weights.
MAX_BYTES = 2**31 - 1


def export_onnx(
    module: fx.GraphModule,
    path: Path,
    *,
    input_shape: Shape,
    opset: int = 17,
    input_name: str = "image",
    output_name: str = "logits",
) -> None:
    """Write a canonical network, pruned or not, as an ONNX file for inference on batches of any size.

    Batch norm is folded into convolutions where it can be. The file appears under `path` complete or not at all; its
    folder must exist. Arguments and errors are those of :func:`onnx_bytes`.
    """
    content = onnx_bytes(module, input_shape=input_shape, opset=opset, input_name=input_name, output_name=output_name)
    write_file(content, path)


def onnx_bytes(
    module: fx.GraphModule,
    *,
    input_shape: Shape,
    opset: int = 17,
    input_name: str = "image",
    output_name: str = "logits",
    fold: bool = True,
) -> bytes:
    """Return a canonical network, pruned or not, as the content of an ONNX file for inference on batches of any size.

    Nodes and weights carry the names of the layers. The content passes the full check of the onnx package.

    Args:
        module: The network; not changed.
        input_shape: Shape of one image without the batch, ``(C, H, W)``.
        opset: Version of the operator set, 13 to 20.
        input_name: Name of the input.
        output_name: Name of the output.
        fold: Whether batch norm is folded into convolutions where it can be. Files that are pruned and trained on keep
            it.

    Raises:
        UnsupportedOperatorError: A layer, or a form of it, that cannot be written.
        ExportError: The operator set is not between 13 and 20, the names are the same, or the file gets too large.
        ModelError: The network does not run on an image of `input_shape`.

    """
    if opset not in OPSETS:
        raise ExportError(f"operator sets {OPSETS[0]} to {OPSETS[-1]} can be written, found opset={opset}")
    if input_name == output_name:
        raise ExportError(f"input and output need different names, both are {input_name!r}")
    if any(layer.training for layer in module.modules()) or any(p.device.type != "cpu" for p in module.parameters()):
        module = copy.deepcopy(module).cpu().eval()
    network = network_of(module, input_shape)
    model = _model(fold_batchnorm(network) if fold else network, opset, input_name, output_name)
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(f"the network takes {model.ByteSize():,} bytes as ONNX, at most {MAX_BYTES:,} are possible")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def onnx_size(module: fx.GraphModule, *, input_shape: Shape, opset: int = 17) -> int:
    """Return the bytes of the file that :func:`export_onnx` would write, without writing it.

    Raises:
        UnsupportedOperatorError: A layer, or a form of it, that cannot be written.

    """
    network = fold_batchnorm(network_of(module, input_shape))
    return int(_model(network, opset, "image", "logits").ByteSize())


def _model(network: Network, opset: int, input_name: str, output_name: str) -> ModelProto:
    """Make the model of a network in eval mode."""
    parts = GraphParts(opset)
    tensors: dict[fx.Node, str] = {}
    for node in network.module.graph.nodes:
        if node.op == "placeholder":
            tensors[node] = input_name
        elif node.op == "output":
            _finish(parts, tensors[node.all_input_nodes[0]], output_name)
        else:
            tensors[node] = _layer(parts, network, node, tensors)
    batch = ("batch",)
    graph = helper.make_graph(
        parts.nodes,
        "autoprune",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, (*batch, *network.input_shape))],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, (*batch, *network.output_shape))],
        parts.weights,
    )
    versions = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=versions, producer_name="autoprune", ir_version=helper.find_min_ir_version_for(versions)
    )


def _layer(parts: GraphParts, network: Network, node: fx.Node, tensors: dict[fx.Node, str]) -> str:
    """Write one layer; return the name of its output."""
    name = str(node.target)
    layer = network.module.get_submodule(name)
    writer = WRITERS.get(type(layer))
    if writer is None:
        raise UnsupportedOperatorError(f"layer {name!r} of type {type(layer).__name__} cannot be exported to ONNX")
    sources = [argument for argument in node.args if isinstance(argument, fx.Node)]
    call = Call(
        parts,
        name,
        tuple(tensors[source] for source in sources),
        tuple(network.shapes[source.name] for source in sources),
        f"{name}.output",
        network.shapes[node.name],
    )
    writer(call, layer)
    return f"{name}.value" if isinstance(layer, Constant) else call.output


def _finish(parts: GraphParts, tensor: str, output_name: str) -> None:
    """Give the network's output its name: rename it where the last node makes it, copy it otherwise."""
    makers = [node for node in parts.nodes if tensor in node.output]
    users = [node for node in parts.nodes if tensor in node.input]
    if makers and not users:
        makers[0].output[0] = output_name
    else:
        parts.nodes.append(helper.make_node("Identity", [tensor], [output_name], name=f"{output_name}.identity"))


def write_file(data: bytes, path: Path) -> None:
    """Write a file completely or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
