"""Constant folding: nodes all of whose inputs are known, most of them computing shapes."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.formats._onnx_call import NONSENSE, Array, first_line

_FOLDABLE = (
    "Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape Cos Div Equal Erf Exp Expand Flatten Floor "
    "Gather Greater GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Min Mod Mul Neg Not Or Pad Pow Range "
    "Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape ScatterND Shape Sigmoid Sign Sin Size "
    "Slice Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where"
)

#: Operators that may be computed at import when all inputs are constants.
FOLDABLE = frozenset(_FOLDABLE.split())

#: Values all folded constants of one file may hold together (1 GiB of 32-bit floats).
MAX_FOLDED_VALUES = 2**28

_BROADCASTING = frozenset(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Sum Where".split()  # noqa: SIM905 - a long list
)


def fold(node: onnx.NodeProto, inputs: Sequence[Array | None], opset: int, room: int) -> tuple[Array, ...]:
    """Compute a node from constant inputs.

    Args:
        node: A node of one of the :data:`FOLDABLE` operators.
        inputs: Its inputs, None where left out.
        opset: Version of the default operator set.
        room: Values the results may hold at most.

    Raises:
        ModelError: The node cannot be computed or its result would be too large.

    """
    where = f"node {node.name!r} ({node.op_type})"
    if any(attribute.type == onnx.AttributeProto.SPARSE_TENSOR for attribute in node.attribute):
        raise UnsupportedOperatorError(f"{where}: sparse tensors are not supported; re-export with dense weights")
    names = [f"in{i}" if value is not None else "" for i, value in enumerate(inputs)]
    outputs = [f"out{i}" for i in range(len(node.output))]
    single = onnx.NodeProto(op_type=node.op_type, input=names, output=outputs, attribute=node.attribute)
    try:
        if _result_size(node, inputs) > room:
            raise ModelError(f"{where} makes a constant too large to hold; at most {MAX_FOLDED_VALUES} values fit")
        graph = onnx.helper.make_graph(
            [single],
            "fold",
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names if name],
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        feeds = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except (*NONSENSE, AttributeError) as error:
        raise ModelError(f"{where}: the constant it computes is not defined: {first_line(error)}") from error
    return tuple(np.asarray(result) for result in results)


def _result_size(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> int:
    """Bound the number of values a node computes; 0 where it is not larger than its inputs."""
    op_type = node.op_type
    given = [value for value in inputs if value is not None]
    if op_type in _BROADCASTING:
        return _size(np.broadcast_shapes(*(value.shape for value in given)))
    if op_type == "ConstantOfShape":
        return _size(int(size) for size in given[0])
    if op_type == "Expand":
        return _size(np.broadcast_shapes(given[0].shape, tuple(int(size) for size in given[1])))
    if op_type == "Tile":
        return int(given[0].size) * _size(int(count) for count in given[1])
    if op_type == "Range":
        start, limit, step = (float(value) for value in given)
        return math.ceil(abs((limit - start) / step)) if step else 0
    if op_type == "Gather":
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return int(given[1].size * given[0].size // max(given[0].shape[axis], 1))
    if op_type == "MatMul":
        return int(given[0].size * given[1].size // max(given[0].shape[-1] if given[0].ndim else 1, 1))
    if op_type == "Pad":
        rank = max(given[0].ndim, 1)
        return _size(size + int(np.abs(given[1]).sum()) for size in given[0].shape) * rank
    return sum(value.size for value in given)


def _size(shape: Iterable[int]) -> int:
    """Number of values of a shape."""
    return int(math.prod(shape))
