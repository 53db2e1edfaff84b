"""Converters of ONNX operators that cut and join: slices, splits, padding, concatenation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoprune.formats._onnx_call import Active, Call, Known, Value
from autoprune.formats._onnx_shapes import drop_dims
from autoprune.network.layers import Add, Concat, Pad, Slice

#: Runs of neighbouring channels one Gather may pick; a channel shuffle is a reshape, not a Gather.
MAX_RUNS = 64


def cut(call: Call, x: Active, dim: int, bounds: tuple[int, int, int]) -> Active:
    """Keep ``start:stop:step`` of one dimension; nothing is added where that is all of it."""
    start, stop, step = bounds
    if bounds == (0, x.shapes[0][dim], 1):
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
    if {len(axes), len(steps), *(end.size for end in ends.at)} != {len(starts)}:
        raise call.unsupported("starts, ends, axes and steps are not of one length")
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
        x = cut(call, x, dim, bounds[0])
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
    return [cut(call, x, dim, (end - size, end, 1)) for size, end in zip(sizes, ends, strict=True)]


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
        return drop_dims(call, cut(call, x, dim, (positions[0], positions[0] + 1, 1)), [dim])
    runs = _runs(positions)
    if len(runs) > MAX_RUNS:
        raise call.unsupported(f"picks {len(runs)} separate runs; at most {MAX_RUNS} are supported")
    parts = [cut(call, x, dim, run) for run in runs]
    return parts[0] if len(parts) == 1 else call.add(Concat(dim), *parts)


def gather_nd(call: Call) -> Value:
    """GatherND of a constant list of positions along the first axis: slices."""
    index = call.known(1, "the indices")
    if index.ndim != 2 or index.shape[1] != 1 or call.attributes.get("batch_dims", 0):
        raise call.unsupported(f"indices of shape {index.shape}; only a list of positions along one axis is supported")
    positions = Known((index[:, 0], index[:, 0]))
    return gather(replace(call, inputs=(call.inputs[0], positions), attributes={"axis": 0}))


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
        if min(before, after) < 0:
            x = cut(call, x, dim, (max(-before, 0), x.shapes[0][dim] - max(-after, 0), 1))
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
