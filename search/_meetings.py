"""Which groups meet, that is, share the cost of some layer; and the chains among them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Graph = NDArray[np.bool_]


def find_cut(meets: Graph, prefer: Iterable[int] = ()) -> tuple[int, ...]:
    """Return groups without which all others form chains, of ``meets (n_groups, n_groups)``; empty if they do already.

    No group of it can be spared. Groups that meet many others are taken first, but those to `prefer` before them.
    """
    preferred, cut = set(prefer), set[int]()
    while tangled := set(_tangled(meets, cut)):
        degrees = (meets & ~_among(meets, cut)).sum(axis=1)
        cut.add(max(sorted(tangled & preferred or tangled), key=lambda group: degrees[group]))
    for group in sorted(cut, key=lambda group: (group in preferred, group)):
        if not _tangled(meets, cut - {group}):
            cut.remove(group)
    return tuple(sorted(cut))


def in_chains(meets: Graph, cut: Iterable[int]) -> list[int]:
    """Return the groups outside `cut`, path after path, such that each meets at most the next one and the last one."""
    left = _outside(meets, cut)
    order: list[int] = []
    while left:
        ends = [group for group in left if meets[group][left].sum() <= 1]
        assert ends, "the groups outside a cut form paths"
        group = ends[0]
        while True:
            order.append(group)
            left.remove(group)
            following = [other for other in left if meets[group, other]]
            if not following:
                break
            group = following[0]
    return order


def _outside(meets: Graph, cut: Iterable[int]) -> list[int]:
    """Return the groups outside `cut`."""
    held = set(cut)
    return [group for group in range(len(meets)) if group not in held]


def _among(meets: Graph, cut: Iterable[int]) -> Graph:
    """Return the meetings in which a group of `cut` takes part."""
    held = np.zeros(len(meets), dtype=bool)
    held[list(cut)] = True
    return np.asarray(held[:, None] | held)


def _tangled(meets: Graph, cut: Iterable[int]) -> list[int]:
    """Return the groups outside `cut` that are connected to a branch or a circle of meetings outside `cut`."""
    left = meets & ~_among(meets, cut)
    unseen, tangled = _outside(meets, cut), []
    while unseen:
        component = [unseen.pop(0)]
        for group in component:
            reached = [other for other in unseen if left[group, other]]
            component += reached
            unseen = [other for other in unseen if other not in reached]
        degrees = left[component].sum(axis=1)
        if degrees.max() > 2 or degrees.sum() >= 2 * len(component):
            tangled += component
    return tangled
