"""The bytes of an ONNX file as a protobuf message whose text is text."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from autoprune.errors import ModelError


def parse(path: Path, max_bytes: int) -> onnx.ModelProto:
    """Read and decode a file of at most `max_bytes`.

    Raises:
        ModelError: It is missing, empty, too large, cut off, corrupt or not an ONNX network.

    """
    name = repr(str(path))
    if not path.is_file():
        raise ModelError(f"model file {name} does not exist or is not a file; expected an ONNX file")
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"model file {name} is empty; expected an ONNX file")
    if size > max_bytes:
        raise ModelError(f"model file {name} has {size:,} bytes; at most {max_bytes:,} are read")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        sound = all(isinstance(text, str) for text in _texts(model))
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"model file {name} is cut off, corrupt or not ONNX: export it again") from error
    except OSError as error:
        raise ModelError(f"model file {name} cannot be read: {error.strerror}") from error
    if not sound:
        raise ModelError(f"model file {name} is corrupt, its names are not text: export it again")
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"model file {name} is not an ONNX network: it has no nodes; export it again")
    return model


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of the graph and of all functions."""
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    """Yield every name in use; protobuf hands out bytes, or raises, where one is not UTF-8."""
    for entry in model.opset_import:
        yield entry.domain
    for function in model.functions:
        yield from (function.domain, function.name, *function.input, *function.output, *function.attribute)
    for node in nodes(model):
        yield from (node.name, node.domain, node.op_type, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name, attribute.t.name)
    for tensor in model.graph.initializer:
        yield tensor.name
    for value in (*model.graph.input, *model.graph.output):
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
