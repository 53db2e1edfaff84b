"""ONNX files gone wrong: valid ones with a few bytes, or a few fields of the message, changed at random."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from autoprune.formats.onnx_operators import SUPPORTED
from tests.corpus import exported
from tests.service.live_service import tiny_onnx

#: Networks of the corpus that between them hold most operators, small enough to be read in a fraction of a second.
NETWORKS = (
    "lenet",
    "resnet_padded",
    "mobilenet_v2",
    "se_linear",
    "densenet",
    "shufflenet_v1",
    "upsampler",
    "vit_token",
)

_INTEGERS = (0, 1, -1, 2, 7, 255, 4096, 65_537, 2**20, 2**28, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**31), -(2**63))
_FLOATS = (0.0, -1.0, 1e-30, 1e30, 3e38, float("inf"), float("nan"))
_LARGEST_FLIPS = 8


def sound_files() -> list[bytes]:
    """Return the files that are changed."""
    return [tiny_onnx(), *(exported(name, "torchscript").read_bytes() for name in NETWORKS)]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a file that one of many things happened to, once or several times."""
    if rng.random() < 0.3:
        return _with_other_bytes(content, rng)
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_MUTATIONS)(model, rng)
    return bytes(model.SerializeToString())


def _with_other_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut off, overwrite, repeat or drop bytes anywhere."""
    start = rng.randrange(len(content))
    length = min(rng.choice((1, 2, 8, 64, 1024)), len(content) - start)
    kind = rng.randrange(4)
    if kind == 0:
        return content[:start]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(rng.randint(1, _LARGEST_FLIPS)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 2:
        return content[:start] + content[start : start + length] * rng.choice((2, 50)) + content[start + length :]
    return content[:start] + content[start + length :]


def _change_value(model: onnx.ModelProto, rng: random.Random) -> None:
    """Give one field, anywhere but in the weights, another value."""
    fields = [(message, field) for message in _messages(model) for field, _ in message.ListFields()]
    message, field = rng.choice([pair for pair in fields if pair[1].message_type is None])
    if field.is_repeated:
        values = getattr(message, field.name)
        values[rng.randrange(len(values))] = _value(field, rng)
    else:
        setattr(message, field.name, _value(field, rng))


def _change_list(model: onnx.ModelProto, rng: random.Random) -> None:
    """Remove, repeat or exchange elements of one list."""
    fields = [(message, field) for message in _messages(model) for field, _ in message.ListFields()]
    message, field = rng.choice([pair for pair in fields if pair[1].is_repeated])
    values = list(getattr(message, field.name))
    first, second = rng.randrange(len(values)), rng.randrange(len(values))
    kind = rng.randrange(3)
    if kind == 0:
        del values[first]
    elif kind == 1:
        values.extend([values[first]] * rng.choice((1, 1, 200)))
    else:
        values[first], values[second] = values[second], values[first]
    copies = [
        type(value).FromString(value.SerializeToString()) if isinstance(value, Message) else value for value in values
    ]
    message.ClearField(field.name)
    getattr(message, field.name).extend(copies)


def _change_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    """Make one node another operator."""
    if model.graph.node:
        rng.choice(model.graph.node).op_type = rng.choice(sorted(SUPPORTED))


def _change_wiring(model: onnx.ModelProto, rng: random.Random) -> None:
    """Let one node read what another one makes, or a weight."""
    names = [name for node in model.graph.node for name in node.output]
    names += [tensor.name for tensor in model.graph.initializer] + ["", "image"]
    readers = [node for node in model.graph.node if node.input]
    if readers:
        node = rng.choice(readers)
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _change_size(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change a size of the image, of a weight, or a number among a node's attributes."""
    dims = [dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim]
    attributes = [item for node in model.graph.node for item in node.attribute if item.ints or item.type == item.INT]
    kind = rng.randrange(3)
    if kind == 0 and dims:
        rng.choice(dims).dim_value = rng.choice(_INTEGERS)
    elif kind == 1 and model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_INTEGERS)
    elif attributes:
        item = rng.choice(attributes)
        if item.ints:
            item.ints[rng.randrange(len(item.ints))] = rng.choice(_INTEGERS)
        else:
            item.i = rng.choice(_INTEGERS)


_MUTATIONS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _change_value, _change_list, _change_operator, _change_wiring, _change_size,
)  # fmt: skip


def _messages(message: Message) -> Iterator[Any]:
    """Yield a message and all in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _value(field: FieldDescriptor, rng: random.Random) -> object:
    """Return some value of a field's type."""
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(("", "image", "x" * 5000, "../../etc/passwd", "\0", "Conv", "com.microsoft", "ä"))
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    bits = 31 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
    lowest = 0 if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64) else -(2**bits)
    return rng.choice([value for value in _INTEGERS if lowest <= value < 2**bits])
