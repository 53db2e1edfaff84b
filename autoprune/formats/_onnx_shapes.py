"""Converters of ONNX operators that change shapes: views, transpositions, expansion."""

import math
from collections.abc import Sequence

import numpy as np

from autoprune.formats._onnx_call import Active, Array, Call, Known, Value
from autoprune.formats._onnx_effort import MAX_ACTIVATION_VALUES
from autoprune.network.layers import Mul, Permute, Reshape
from autoprune.network.network import Shape

Shapes = tuple[Shape, Shape]


def reshape(call: Call, x: Active, targets: Shapes) -> Active:
    """View `x` as `targets`, one full shape per batch size; the entry that differs follows the batch."""
    first, second = targets
    if targets == x.shapes:
        return x
    differing = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(differing) != 1:
        raise call.unsupported(
            f"reshapes {x.shapes[0]} to {first} and {x.shapes[1]} to {second}; exactly one size may follow the batch"
        )
    shape = tuple(-1 if i == differing[0] else size for i, size in enumerate(first))
    name = call.name if call.node.op_type in _VIEWS else f"{call.name}_view"
    return call.add(Reshape(shape), x, name=name)


_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def drop_dims(call: Call, x: Active, dims: Sequence[int]) -> Active:
    """Remove dimensions of size 1."""
    kept = [dim for dim in range(x.rank) if dim not in dims]
    return reshape(call, x, (tuple(x.shapes[0][dim] for dim in kept), tuple(x.shapes[1][dim] for dim in kept)))


def reshape_op(call: Call) -> Value:
    """Reshape; a target for one batch size only (fixed-batch files) is read as one that follows the batch."""
    x, target = call.active(0), call.inputs[1]
    if not isinstance(target, Known):
        raise call.unsupported("the target shape is computed from the image; only constant shapes are supported")
    keep_zeros = bool(call.attributes.get("allowzero", 0))
    wanted = [_resolved(call, shape, at, keep_zeros) for shape, at in zip(x.shapes, target.at, strict=True)]
    if call.batch.fixed and not target.varies:
        wanted[1] = _with_batch(call, x, wanted[0])
    return reshape(call, x, (wanted[0], wanted[1]))


def _resolved(call: Call, shape: Shape, target: Array, keep_zeros: bool) -> Shape:
    """Replace 0 (copied) and -1 (inferred) in the target of a Reshape."""
    sizes = [int(size) for size in target.ravel()]
    if not keep_zeros:
        if any(size == 0 and i >= len(shape) for i, size in enumerate(sizes)):
            raise call.unsupported(f"target {sizes} copies a dimension that {shape} does not have")
        sizes = [shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if sizes.count(-1) == 1 and (rest := math.prod(size for size in sizes if size != -1)):
        sizes[sizes.index(-1)] = math.prod(shape) // rest
    return tuple(sizes)


def _with_batch(call: Call, x: Active, target: Shape) -> Shape:
    """Rewrite a target at the file's own batch size for the second one.

    The batch stays where it is in memory. Where sizes alone leave that open (batch size 1 between other dimensions), a
    view with fewer dimensions is taken to merge the batch into the dimension before it, any other into the one after.
    """
    batch, other = call.batch.sizes
    dim = next(i for i in range(x.rank) if x.follows_batch(i))
    before, unit = math.prod(x.shapes[0][:dim]), x.shapes[0][dim] // batch
    ahead = [math.prod(target[:i]) for i in range(len(target) + 1)]
    places = [i for i, size in enumerate(target) if size % batch == 0]
    alone = [i for i in places if target[i] == batch and ahead[i] in (before, before * unit)]
    starts = [i for i in places if ahead[i] == before]
    ends = [i for i in places if ahead[i + 1] in (before * batch, before * unit * batch)]
    for i in [*alone, *(ends + starts if len(target) < x.rank and dim else starts + ends)]:
        return (*target[:i], target[i] // batch * other, *target[i + 1 :])
    raise call.unsupported(
        f"reshapes {x.shapes[0]} to {target}, which holds for this batch size only; re-export with a dynamic batch axis"
    )


def flatten(call: Call) -> Value:
    """Flatten to two dimensions."""
    x = call.active(0)
    axis = int(call.attributes.get("axis", 1))
    axis = axis + x.rank if axis < 0 else axis
    first, second = ((math.prod(shape[:axis]), math.prod(shape[axis:])) for shape in x.shapes)
    return reshape(call, x, (first, second))


def squeeze(call: Call) -> Value:
    """Squeeze."""
    x, axes = call.active(0), call.ints(1, "axes", "the axes")
    if axes is None:
        axes = [dim for dim in range(x.rank) if x.shapes[0][dim] == 1 and not x.follows_batch(dim)]
    dims = [call.axis(x, axis) for axis in axes]
    if any(x.shapes[0][dim] != 1 for dim in dims):
        raise call.unsupported(f"axes {axes} of {x.shapes[0]} are not all of size 1")
    return drop_dims(call, x, dims)


def unsqueeze(call: Call) -> Value:
    """Unsqueeze."""
    x, axes = call.active(0), call.ints(1, "axes", "the axes") or []
    rank = x.rank + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) != len(axes):
        raise call.unsupported(f"axes {axes} name a dimension twice")
    shapes = []
    for shape in x.shapes:
        sizes = iter(shape)
        shapes.append(tuple(1 if dim in new else next(sizes) for dim in range(rank)))
    return reshape(call, x, (shapes[0], shapes[1]))


def transpose(call: Call) -> Value:
    """Transpose."""
    x = call.active(0)
    dims = [int(dim) for dim in call.attributes.get("perm") or reversed(range(x.rank))]
    return call.add(Permute(dims), x)


def expand(call: Call) -> Value:
    """Expand of an activation: multiplied by ones where it really grows."""
    x, target = call.active(0), call.inputs[1]
    if not isinstance(target, Known):
        raise call.unsupported("the target shape is computed from the image; only constant shapes are supported")
    sizes = [int(size) for size in target.at[0].ravel()]
    if len(sizes) > x.rank:
        raise call.unsupported(f"adds dimensions: {x.shapes[0]} to {sizes}; only existing ones may grow")
    sizes = [1] * (x.rank - len(sizes)) + sizes
    grown = [
        n if have == 1 and not x.follows_batch(i) else 1
        for i, (have, n) in enumerate(zip(x.shapes[0], sizes, strict=True))
    ]
    if all(n == 1 for n in grown):
        return x
    if min(grown) < 1 or math.prod(grown) > MAX_ACTIVATION_VALUES:
        raise call.unsupported(f"expands to {sizes}, which is empty or too large")
    return call.add(Mul(), x, call.constant(np.ones(grown, np.float32)))


def depth_to_space(call: Call) -> Value:
    """DepthToSpace (pixel shuffle): a reshape, a permutation and a reshape."""
    x, block = call.active(0), int(call.attributes["blocksize"])
    if x.rank != 4 or block < 1 or x.shapes[0][1] % block**2:
        raise call.unsupported(f"blocks of {block} do not fit an input of shape {x.shapes[0]}")
    _, c, h, w = x.shapes[0]
    column_first = call.attributes.get("mode", "DCR") == "DCR"
    inner = (block, block, c // block**2) if column_first else (c // block**2, block, block)
    y = reshape(call, x, _after_batch(x, (*inner, h, w)))
    y = call.add(Permute((0, 3, 4, 1, 5, 2) if column_first else (0, 1, 4, 2, 5, 3)), y)
    return reshape(call, y, _after_batch(x, (c // block**2, h * block, w * block)))


def space_to_depth(call: Call) -> Value:
    """SpaceToDepth: a reshape, a permutation and a reshape."""
    x, block = call.active(0), int(call.attributes["blocksize"])
    if x.rank != 4 or block < 1 or x.shapes[0][2] % block or x.shapes[0][3] % block:
        raise call.unsupported(f"blocks of {block} do not fit an input of shape {x.shapes[0]}")
    _, c, h, w = x.shapes[0]
    y = reshape(call, x, _after_batch(x, (c, h // block, block, w // block, block)))
    y = call.add(Permute((0, 3, 5, 1, 2, 4)), y)
    return reshape(call, y, _after_batch(x, (c * block**2, h // block, w // block)))


def _after_batch(x: Active, sizes: Shape) -> Shapes:
    """Return the shapes with the batch of `x` in front of `sizes`."""
    return (x.shapes[0][0], *sizes), (x.shapes[1][0], *sizes)
