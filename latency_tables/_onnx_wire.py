"""The few ONNX messages a timing model is made of, written byte by byte: a device needs no onnx package.

Field numbers are those of ``onnx.proto3`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3); the encoding is
that of protocol buffers (https://protobuf.dev/programming-guides/encoding).
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Value of an attribute of a node.
Attribute = int | float | str | tuple[int, ...]

#: Values of a tensor.
Values = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.int32] | NDArray[np.int64]

#: TensorProto.DataType of the types that tensors may have.
_KINDS = {
    np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int32): 6, np.dtype(np.int64): 7,
}  # fmt: skip
_FLOAT32 = np.dtype(np.float32)

_MOST_BYTES = 2**31 - 1


def node(
    op_type: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Attribute]
) -> bytes:
    """Return a NodeProto."""
    parts = [_text(1, each) for each in inputs]
    parts += [_text(2, each) for each in outputs]
    parts += [_text(3, name), _text(4, op_type)]
    parts += [_bytes(5, _attribute(key, value)) for key, value in attributes.items()]
    return b"".join(parts)


def tensor(name: str, array: Values) -> bytes:
    """Return a TensorProto."""
    raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, _KINDS[array.dtype]) + _text(8, name) + _bytes(9, raw)


def value_info(name: str, shape: Iterable[int], kind: np.dtype[Any] = _FLOAT32) -> bytes:
    """Return a ValueInfoProto of a tensor of this shape; -1 is a size that is not known beforehand."""
    dimensions = b"".join(_bytes(1, _number(1, size) if size >= 0 else _text(2, "n")) for size in shape)
    described = _number(1, _KINDS[kind]) + _bytes(2, dimensions)
    return _text(1, name) + _bytes(2, _bytes(1, described))


def model(
    *,
    nodes: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    initializers: Iterable[bytes],
    opset: int,
    ir_version: int,
) -> bytes:
    """Return a ModelProto with one graph."""
    graph = [_bytes(1, each) for each in nodes]
    graph.append(_text(2, "units"))
    graph += [_bytes(5, each) for each in initializers]
    graph += [_bytes(11, each) for each in inputs]
    graph += [_bytes(12, each) for each in outputs]
    data = b"".join(
        [_number(1, ir_version), _text(2, "autoprune"), _bytes(7, b"".join(graph)), _bytes(8, _number(2, opset))]
    )
    assert len(data) <= _MOST_BYTES, "a file that holds its weights cannot be larger"
    return data


def _attribute(name: str, value: Attribute) -> bytes:
    """Return an AttributeProto."""
    head = _text(1, name)
    if isinstance(value, float):
        return head + _tag(2, 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, 2)
    if isinstance(value, str):
        return head + _text(4, value) + _number(20, 3)
    return head + b"".join(_number(8, each) for each in value) + _number(20, 7)


def _varint(value: int) -> bytes:
    """Return a whole number as base-128 varint; negative ones as two's complement of 64 bits."""
    rest = value & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _tag(field: int, wire_type: int) -> bytes:
    """Return what stands before a field."""
    return _varint(field << 3 | wire_type)


def _number(field: int, value: int) -> bytes:
    """Return a field that holds a whole number."""
    return _tag(field, 0) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    """Return a field that holds bytes or another message."""
    return _tag(field, 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    """Return a field that holds text."""
    return _bytes(field, value.encode("utf-8"))
