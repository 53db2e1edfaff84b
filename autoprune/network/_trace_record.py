"""One look at the original network at work: shapes, constants, and which dimension follows the batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.network._trace_call import BATCHES, BatchDependent, Output, Value


@dataclass(frozen=True, slots=True)
class Record:
    """What running a graph showed.

    Attributes:
        known: Value of every node that does not depend on the image: constants, sizes, tuples of them.
        outputs: Description of the output of every other node; missing where it is not a tensor (or a tuple of
            tensors) with at most one dimension that follows the batch.
        result: What the network returned at the larger batch size.

    """

    known: Mapping[fx.Node, object]
    outputs: Mapping[fx.Node, Output]
    result: object


def record(root: nn.Module, graph: fx.Graph, images: Tensor) -> Record:
    """Run `graph` on `images` of the larger of :data:`BATCHES`, and on the first few of them."""
    small, large = (_Recorder(root, graph) for _ in BATCHES)
    with torch.no_grad():
        small.run(images[: BATCHES[0]])
        result = large.run(images)
    known: dict[fx.Node, object] = {}
    outputs: dict[fx.Node, Output] = {}
    for node in graph.nodes:
        a, b = small.results.get(node), large.results.get(node)
        if node in small.tainted:
            described = _describe(a, b)
            if described is not None:
                outputs[node] = described
                if isinstance(described, Value):
                    node.meta["shape"] = described.shape
        elif node.op not in ("placeholder", "output"):
            label = str(node.target).removeprefix("network.") if node.op == "get_attr" else None
            known[node] = _known(a, b, label)
    return Record(known, outputs, result)


@dataclass(frozen=True, slots=True)
class _Shaped:
    """Shape of a tensor whose values were let go."""

    shape: tuple[int, ...]
    is_float: bool


#: Methods and functions that take no more than shape and type from a tensor.
_SHAPE_ONLY = {"new_zeros", "new_ones", "new_full", torch.zeros_like, torch.ones_like, torch.full_like}


class _Recorder(fx.Interpreter):
    """Runs a graph; remembers shapes of what depends on the image and values of what does not."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.results: dict[fx.Node, object] = {}
        self.tainted: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        depends = n.target not in _SHAPE_ONLY and any(i in self.tainted for i in n.all_input_nodes)
        if n.op == "placeholder" or (depends and _has_tensor(result)):
            self.tainted.add(n)
            self.results[n] = _shapes(result)
        else:
            self.results[n] = result
        return result


def _has_tensor(result: object) -> bool:
    """Tell whether a result is or holds a tensor."""
    if isinstance(result, tuple | list):
        return any(_has_tensor(item) for item in result)
    return isinstance(result, Tensor)


def _shapes(result: object) -> object:
    """Replace tensors by their shapes."""
    if isinstance(result, Tensor):
        return _Shaped(tuple(result.shape), result.is_floating_point())
    return tuple(_shapes(item) for item in result) if isinstance(result, tuple | list) else result


def _describe(a: object, b: object) -> Output | None:
    """Describe an output seen at both batch sizes; None if it is not what a network may compute."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        items = [_describe(x, y) for x, y in zip(a, b, strict=True)]
        values = tuple(item for item in items if isinstance(item, Value))
        return values if len(values) == len(items) else None
    if not isinstance(a, _Shaped) or not isinstance(b, _Shaped) or not a.is_float:
        return None
    dim = _batch_dim(a.shape, b.shape)
    return None if dim is None else Value(a.shape, dim)


def _batch_dim(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """Return the one dimension whose size is proportional to the batch; None if there is not exactly one."""
    if len(a) != len(b):
        return None
    differing = [dim for dim, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if len(differing) != 1 or a[differing[0]] * BATCHES[1] != b[differing[0]] * BATCHES[0]:
        return None
    return differing[0]


def _known(a: object, b: object, label: str | None = None) -> object:
    """Merge a value seen at both batch sizes; what differs depends on the batch."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape == b.shape:
            return Value(tuple(a.shape), None, constant=a, label=label) if torch.equal(a, b) else BatchDependent()
        dim = _batch_dim(tuple(a.shape), tuple(b.shape))
        if dim is None or not torch.equal(*(t.narrow(dim, 0, 1).expand_as(b) for t in (a, b))):
            return BatchDependent()
        return Value(tuple(a.shape), dim, constant=a.narrow(dim, 0, 1))
    if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
        return tuple(_known(x, y) for x, y in zip(a, b, strict=True))
    return a if type(a) is type(b) and a == b else BatchDependent()
