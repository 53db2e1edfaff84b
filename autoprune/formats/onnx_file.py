"""Reading ONNX files that strangers wrote: everything is checked before anything is used.

An ONNX file holds no code, but it may be cut off, point to other files, declare tensors it does not contain, or hide
exponential growth in nested functions. Each of these ends in one :class:`~autoprune.errors.ModelError`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.formats._onnx_bytes import nodes, parse
from autoprune.formats._onnx_call import first_line
from autoprune.formats.onnx_operators import OPERATORS, SUPPORTED
from autoprune.network.network import Shape

#: Largest file read, in bytes (1 GiB; protobuf itself ends at 2 GiB).
MAX_FILE_BYTES = 2**30

#: Most nodes a network may have, functions expanded.
MAX_NODES = 20_000

#: Versions of the default operator set that are understood.
MIN_OPSET, MAX_OPSET = 13, 20

#: Most values one image may have.
MAX_IMAGE_VALUES = 2**25

_DEFAULT_DOMAINS = ("", "ai.onnx")
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_ADVICE = "re-export with opset_version=17"

#: Bytes per value of the tensor types that are read, when stored raw.
_VALUE_BYTES: Mapping[int, int] = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BOOL: 1,
    TensorProto.INT8: 1, TensorProto.INT16: 2, TensorProto.INT32: 4, TensorProto.INT64: 8,
    TensorProto.UINT8: 1, TensorProto.UINT16: 2, TensorProto.UINT32: 4, TensorProto.UINT64: 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input of a network: its name, the shape of one image ``(C, H, W)``, the batch size if the file fixes it."""

    name: str
    shape: Shape
    batch: int | None


def read_onnx(path: str | Path, *, input_shape: Shape | None = None) -> onnx.ModelProto:
    """Read and check an ONNX file; model-local functions are expanded.

    Args:
        path: The file.
        input_shape: Shape of one image, ``(C, H, W)``, for files that leave it open.

    Raises:
        ModelError: The file is missing, empty, larger than :data:`MAX_FILE_BYTES`, cut off or not ONNX; its operator
            set is outside 13 to 20; it has more than :data:`MAX_NODES` nodes, external data, tensors whose data do not
            match their shapes or are not finite, or not exactly one image of known size in and one tensor out.
        UnsupportedOperatorError: It contains control flow, recurrent or other operators that are not supported.

    """
    model = parse(Path(path), MAX_FILE_BYTES)
    _check_opset(model)
    for where, tensor in _tensors(model):
        _check_stored_inside(where, tensor)
    if _expanded_nodes(model) > MAX_NODES:
        raise ModelError(f"the network has more than {MAX_NODES:,} nodes; simplify or split it before exporting")
    model = _expand_functions(model)
    for node in model.graph.node:
        _check_node(node)
    for where, tensor in _tensors(model):
        _check_values(where, tensor)
    image_input(model, input_shape)
    _check_output(model.graph)
    _check_structure(model)
    return model


def default_opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set, 0 if none is named."""
    return max((entry.version for entry in model.opset_import if entry.domain in _DEFAULT_DOMAINS), default=0)


def unsupported_operator(node: onnx.NodeProto, reason: str) -> UnsupportedOperatorError:
    """Return the error that names a node, its operator, what is wrong and what is supported."""
    domain = "" if node.domain in _DEFAULT_DOMAINS else f"{node.domain}."
    return UnsupportedOperatorError(
        f"node {node.name!r}: operator {domain}{node.op_type} {reason}; supported: {', '.join(sorted(OPERATORS))}"
    )


def image_input(model: onnx.ModelProto, input_shape: Shape | None = None) -> ImageInput:
    """Return the only input of a model, sizes left open filled in from `input_shape`.

    Raises:
        ModelError: There is not exactly one input, it is not a batch of images of 32-bit floats, its size is open, or
            `input_shape` contradicts it.

    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise ModelError(f"expected one input (a batch of images), found {len(inputs)}: {names}")
    value = inputs[0]
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        kind = _type_name(tensor.elem_type) if value.type.HasField("tensor_type") else "not a tensor"
        raise ModelError(f"input {value.name!r} is {kind}; 32-bit floats are expected: export a float32 network")
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    shown = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"input {value.name!r} has shape {shown}; images (N, C, H, W) are expected")
    if input_shape is not None:
        if len(input_shape) != 3 or any(a not in (None, b) for a, b in zip(dims[1:], input_shape, strict=True)):
            raise ModelError(f"input_shape {tuple(input_shape)} contradicts the file's input {value.name!r}: {shown}")
        dims = [dims[0], *input_shape]
    sizes = tuple(size for size in dims[1:] if size is not None)
    if len(sizes) != 3:
        raise ModelError(
            f"input {value.name!r} has shape {shown}: channels, height and width must be known; "
            "re-export with only the batch dynamic, or give input_shape=(C, H, W)"
        )
    if min(sizes) < 1 or math.prod(sizes) > MAX_IMAGE_VALUES or (dims[0] is not None and not 1 <= dims[0] <= 4096):
        raise ModelError(
            f"input {value.name!r} has shape {shown}; sizes from 1 to {MAX_IMAGE_VALUES:,} values expected"
        )
    return ImageInput(value.name, sizes, dims[0])


def _type_name(kind: int) -> str:
    """Return the name of an element type, or its number where it has none."""
    return TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else f"of element type {kind}"


def _check_opset(model: onnx.ModelProto) -> None:
    """Refuse operator sets whose operators mean other things."""
    version = default_opset(model)
    if not MIN_OPSET <= version <= MAX_OPSET:
        raise ModelError(f"the file uses opset {version}; expected {MIN_OPSET} to {MAX_OPSET}: {_ADVICE}")


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield every tensor with words for where it is."""
    for tensor in model.graph.initializer:
        yield f"tensor {tensor.name!r}", tensor
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelError(f"tensor {name!r} is sparse, which is not supported; re-export with dense weights")
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield f"tensor {(attribute.t.name or attribute.name)!r} of node {node.name!r}", attribute.t


def _check_stored_inside(where: str, tensor: TensorProto) -> None:
    """Refuse tensors in other files, of unknown types, or whose data do not match their shape."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ModelError(
            f"{where} has external data, which is not read; save one file: torch.onnx.export(..., external_data=False) "
            "or onnx.save(model, path) without save_as_external_data"
        )
    if tensor.data_type not in _VALUE_BYTES:
        kinds = ", ".join(TensorProto.DataType.Name(kind).lower() for kind in _VALUE_BYTES)
        raise ModelError(f"{where} has element type {tensor.data_type}, which is not supported; supported: {kinds}")
    if tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        raise ModelError(f"{where} has shape {list(tensor.dims)} or is stored in segments; export the network again")
    expected = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        found, rest = divmod(len(tensor.raw_data), _VALUE_BYTES[tensor.data_type])
    else:
        found, rest = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))), 0
    if found != expected or rest:
        raise ModelError(
            f"{where} has shape {list(tensor.dims)}, {expected:,} values, but data for {found:,}: "
            "the file is corrupt; export the network again"
        )


def _check_values(where: str, tensor: TensorProto) -> None:
    """Refuse weights that are not finite; single infinite numbers may be bounds of a Clip."""
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        return
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float32)
    if np.isnan(values).any() or (values.ndim and np.isinf(values).any()):
        raise ModelError(f"{where} holds NaN or infinite values; the network's training went wrong: export a sound one")


def _expanded_nodes(model: onnx.ModelProto) -> int:
    """Count the nodes with functions expanded, without expanding them: nesting may be exponential."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(calls: list[onnx.NodeProto], path: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in calls:
            key = (node.domain, node.op_type)
            if key in path:
                raise ModelError(f"function {key[1]!r} calls itself, which is not supported; export the network again")
            if key in functions and key not in sizes:
                if len(path) > _MAX_FUNCTION_DEPTH:
                    raise ModelError(f"functions are nested more than {_MAX_FUNCTION_DEPTH} deep: simplify the network")
                sizes[key] = size(list(functions[key].node), (*path, key))
            total += sizes.get(key, 1)
        return total

    return size(list(model.graph.node), ())


_MAX_FUNCTION_DEPTH = 64


def _expand_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of model-local functions by their nodes."""
    if not model.functions:
        return model
    try:
        expanded = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, DecodeError) as error:
        raise ModelError(f"the file's functions cannot be expanded: {first_line(error)}; {_ADVICE}") from error
    assert isinstance(expanded, onnx.ModelProto)
    return expanded


def _check_node(node: onnx.NodeProto) -> None:
    """Refuse operators that are not supported, saying of which kind they are."""
    if node.domain not in _DEFAULT_DOMAINS:
        raise unsupported_operator(node, f"of domain {node.domain!r} is custom; only standard ONNX is supported")
    kind = node.op_type
    if kind in _CONTROL_FLOW or any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute):
        raise unsupported_operator(
            node, "is control flow, which depends on the data; export a network without branches"
        )
    if kind in _RECURRENT or "Sequence" in kind or kind.startswith("Optional"):
        raise unsupported_operator(node, "is recurrent or works on sequences; only feed-forward networks are supported")
    if kind not in SUPPORTED:
        raise unsupported_operator(node, "is not supported")


def _check_output(graph: onnx.GraphProto) -> None:
    """Refuse networks with several outputs."""
    if len(graph.output) != 1:
        names = ", ".join(repr(value.name) for value in graph.output) or "none"
        raise ModelError(f"expected one output, found {len(graph.output)}: {names}; export a network that returns one")


def _check_structure(model: onnx.ModelProto) -> None:
    """Let ONNX's own checker look for undefined names, wrong attributes and the like."""
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"the file is not valid ONNX: {first_line(error)}; export the network again") from error
