"""Converters of ONNX operators that move values without changing them, and of shapes."""

import math
from collections.abc import Sequence

import numpy as np

from autoprune.formats._onnx_call import Active, Array, Call, Known, Value
from autoprune.network.layers import Add, Concat, Mul, Pad, Permute, Reshape, Slice
from autoprune.network.network import Shape

Shapes = tuple[Shape, Shape]

#: Runs of neighbouring channels one Gather may pick; a channel shuffle is a reshape, not a Gather.
MAX_RUNS = 64


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
    """Rewrite a target at the file's own batch size for the second one: the batch stays where it begins."""
    dim = next(i for i in range(x.rank) if x.follows_batch(i))
    before = math.prod(x.shapes[0][:dim])
    starts = [i for i in range(len(target)) if math.prod(target[:i]) == before]
    size = call.batch.sizes
    for i in starts:
        if target[i] % size[0] == 0:
            return (*target[:i], target[i] // size[0] * size[1], *target[i + 1 :])
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


def cut(call: Call, x: Active, dim: int, start: int, stop: int, step: int = 1) -> Active:
    """Keep ``start:stop:step`` of one dimension; nothing is added where that is all of it."""
    if (start, stop, step) == (0, x.shapes[0][dim], 1):
        return x
    call.refuse_batch(x, [dim])
    if stop <= start:
        raise call.unsupported(f"keeps nothing of axis {dim}: {start}:{stop}")
    return call.add(Slice(dim, start, stop, step), x)


def slice_op(call: Call) -> Value:
    """Slice with constant bounds and steps >= 1."""
    x = call.active(0)
    starts, ends = call.known(1, "starts").ravel(), call.inputs[2]
    if not isinstance(ends, Known):
        raise call.unsupported("the ends are computed from the image; only constants are supported")
    axes = call.ints(3, "axes", "axes") or list(range(len(starts)))
    steps = call.ints(4, "steps", "steps") or [1] * len(starts)
    for i, axis in enumerate(axes):
        dim, step = call.axis(x, axis), steps[i]
        if step < 1:
            raise call.unsupported(f"step {step}; only steps >= 1 are supported")
        bounds = [
            slice(int(starts[i]), int(end.ravel()[i]), step).indices(shape[dim])
            for end, shape in zip(ends.at, x.shapes, strict=True)
        ]
        if all(bound == (0, shape[dim], 1) for bound, shape in zip(bounds, x.shapes, strict=True)):
            continue
        x = cut(call, x, dim, *bounds[0])
    return x


def split(call: Call) -> Value | Sequence[Value]:
    """Split: one slice per part."""
    x = call.active(0)
    dim = call.axis(x, int(call.attributes.get("axis", 0)))
    call.refuse_batch(x, [dim])
    sizes, parts, total = call.ints(1, "split", "the sizes"), len(call.node.output), x.shapes[0][dim]
    if sizes is None:
        chunk = -(-total // parts)
        sizes = [chunk] * (parts - 1) + [total - chunk * (parts - 1)]
    if sum(sizes) != total or len(sizes) != parts or min(sizes) < 1:
        raise call.unsupported(f"sizes {sizes} for {parts} parts of an axis of {total}; each part needs >= 1")
    ends = np.cumsum(sizes).tolist()
    return [cut(call, x, dim, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def gather(call: Call) -> Value:
    """Gather of constant positions along one axis: slices."""
    x, index = call.active(0), call.known(1, "the indices")
    dim = call.axis(x, int(call.attributes.get("axis", 0)))
    call.refuse_batch(x, [dim])
    size = x.shapes[0][dim]
    if index.ndim > 1 or not index.size or index.min() < -size or index.max() >= size:
        raise call.unsupported(
            f"indices of shape {index.shape} into an axis of {size}; a number or a list is supported"
        )
    positions = (index.ravel().astype(np.int64) % size).tolist()
    if index.ndim == 0:
        return drop_dims(call, cut(call, x, dim, positions[0], positions[0] + 1), [dim])
    runs = _runs(positions)
    if len(runs) > MAX_RUNS:
        raise call.unsupported(f"picks {len(runs)} separate runs; at most {MAX_RUNS} are supported")
    parts = [cut(call, x, dim, start, stop, step) for start, stop, step in runs]
    return parts[0] if len(parts) == 1 else call.add(Concat(dim), *parts)


def _runs(positions: Sequence[int]) -> list[tuple[int, int, int]]:
    """Split positions into slices ``(start, stop, step)``: one if evenly spaced, else one per run of neighbours."""
    steps = set(np.diff(positions).tolist())
    if len(steps) == 1 and min(steps) >= 1:
        return [(positions[0], positions[-1] + 1, steps.pop())]
    runs: list[tuple[int, int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1, 1)
        else:
            runs.append((position, position + 1, 1))
    return runs


def pad(call: Call, x: Active, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Active:
    """Pad with a constant; `pads` holds ``(before, after)`` per dimension, negative ones cut."""
    for dim, (before, after) in enumerate(pads):
        x = cut(call, x, dim, max(-before, 0), x.shapes[0][dim] - max(-after, 0)) if min(before, after) < 0 else x
    grown = [(max(before, 0), max(after, 0)) for before, after in pads]
    if not any(before or after for before, after in grown):
        return x
    call.refuse_batch(x, [dim for dim, amounts in enumerate(grown) if any(amounts)])
    return call.add(Pad(grown, value), x, name=call.name if call.node.op_type == "Pad" else f"{call.name}_pad")


def pad_op(call: Call) -> Value:
    """Pad with a constant."""
    x, mode = call.active(0), call.attributes.get("mode", "constant")
    if mode != "constant":
        raise call.unsupported(f"mode {mode}; only padding with a constant is supported")
    amounts = call.ints(1, "pads", "the pads") or []
    value = call.optional(2, "the value")
    axes = call.ints(3, "axes", "the axes")
    axes = list(range(x.rank)) if axes is None else [call.axis(x, axis) for axis in axes]
    if len(amounts) != 2 * len(axes):
        raise call.unsupported(f"{len(amounts)} pads for {len(axes)} axes; two per axis are expected")
    pads = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pads[axis] = (amounts[i], amounts[i + len(axes)])
    return pad(call, x, pads, float(value.ravel()[0]) if value is not None and value.size else 0.0)


def concat(call: Call) -> Value:
    """Concat; a constant among the parts (a class token) becomes padding plus a constant."""
    actives = [value for value in call.inputs if isinstance(value, Active)]
    dim = call.axis(actives[0], int(call.attributes["axis"]))
    call.refuse_batch(actives[0], [dim])
    if len(actives) == len(call.inputs):
        return call.add(Concat(dim), *actives)
    known = [value for value in call.inputs if isinstance(value, Known)]
    blocks = {id(value): call.without_batch(value) for value in known}
    blocks = {key: block for key, block in blocks.items() if block.ndim == actives[0].rank}
    if len(blocks) < len({id(value) for value in known}):
        raise call.unsupported(f"joins a constant that has not the {actives[0].rank} dimensions of the other parts")
    y, offset = _joined(call, dim, {key: block.shape[dim] for key, block in blocks.items()})
    background = np.zeros((1, *y.shapes[0][1:]), np.float32)
    position = 0
    for value in call.inputs:
        size = value.shapes[0][dim] if isinstance(value, Active) else blocks[id(value)].shape[dim]
        if isinstance(value, Known):
            place = (slice(None),) * dim + (slice(position, position + size),)
            background[place] = blocks[id(value)]
        position += size
    assert position == offset
    return call.add(Add(), y, call.constant(background)) if background.any() else y


def _joined(call: Call, dim: int, sizes: dict[int, int]) -> tuple[Active, int]:
    """Join the activations of a Concat, padded with zeros where its constants go; return the size of `dim` too."""
    parts: list[Active] = []
    waiting = 0
    pads: list[tuple[int, int]] = []
    for value in call.inputs:
        if isinstance(value, Active):
            parts.append(value)
            pads.append((waiting, 0))
            waiting = 0
        elif pads:
            pads[-1] = (pads[-1][0], pads[-1][1] + sizes[id(value)])
        else:
            waiting += sizes[id(value)]
    padded = [
        pad(call, part, [amounts if i == dim else (0, 0) for i in range(part.rank)])
        for part, amounts in zip(parts, pads, strict=True)
    ]
    y = padded[0] if len(padded) == 1 else call.add(Concat(dim), *padded)
    return y, y.shapes[0][dim]


def expand(call: Call) -> Value:
    """Expand of an activation: multiplied by ones where it really grows."""
    x, target = call.active(0), call.inputs[1]
    if not isinstance(target, Known):
        raise call.unsupported("the target shape is computed from the image; only constant shapes are supported")
    sizes = [int(size) for size in target.at[0].ravel()]
    own = (1,) * (len(sizes) - x.rank) + x.shapes[0]
    if len(sizes) > x.rank:
        raise call.unsupported(f"adds dimensions: {x.shapes[0]} to {sizes}; only existing ones may grow")
    own, sizes = own, [1] * (x.rank - len(sizes)) + sizes
    grown = [n if have == 1 and n != 1 and not x.follows_batch(i) else 1 for i, (have, n) in enumerate(zip(own, sizes))]
    if all(n == 1 for n in grown):
        return x
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
