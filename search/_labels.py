"""Label setting: all choices of widths along a chain that can still become the best, from its first group to its last.

A dynamic program over Pareto frontiers (Nemhauser and Ullmann 1969). Lagrangian lower bounds on what is still to come
keep the frontiers short, as in resource-constrained shortest paths (Handler and Zang 1980).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.search._chain import Chain, Counts, Floats, Sweep, sweeps, total

#: Labels kept per position: few at first, so that the rounds after start from a good choice and cut more.
_ROUNDS = (100, 2_000, 20_000)

#: Labels times open widths, over all positions, in a round: fewer labels are kept where many widths remain open.
_MOST_EXTENSIONS, _FEWEST = 5_000_000, 500

#: Most sweeps whose bounds are used, best bounds first.
_MOST_BOUNDS = 8

#: Candidates formed at once, about 100 bytes each.
_MOST_CANDIDATES = 500_000

#: Labels compared with each other in all pairs, and steps of cost at which they are compared with all before.
_BLOCK, _STEPS = 128, 256
_EARLIER = np.triu(np.ones((_BLOCK, _BLOCK), dtype=np.bool_), 1)

#: Errors closer than this share of each other count as equal.
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Best:
    """The best choice found.

    Attributes:
        choice: Indices into the widths, ``(n,)``; None if no choice with an error below the one asked for is known.
        error: Its sum of errors, or the one asked for.
        proven: Whether no choice within the limits has a smaller one.
        prices: Those of the best bound, per share of each limit's room, ``(n_limits,)``.

    """

    choice: Counts | None
    error: float
    proven: bool
    prices: Floats


def best_choice(chain: Chain, errors: Sequence[Floats], *, below: float = np.inf, prices: Floats | None = None) -> Best:
    """Return the choice of widths within the limits with the smallest sum of errors, if that is under `below`.

    `errors` has one error per width and position, ``(n_widths,)``. Exact unless too many labels remain at a position
    (20,000, or `_MOST_EXTENSIONS` over all), which the result's `proven` tells: those with the smallest lower bounds
    are kept then. `prices` say where to begin; those of a similar chain save most of the work.
    """
    found = sweeps(chain, errors, below, prices)
    known = [(one.error, one.choice) for one in found if one.fits]
    known += [(total(errors, corner), corner) for corner in chain.corners if (chain.excess(corner) <= 0).all()]
    error, choice = min(known, key=lambda pair: pair[0], default=(below, None))
    found = sorted(found, key=lambda one: -one.bound)[:_MOST_BOUNDS]
    proven = found[0].bound >= _just_under(min(error, below))
    best = Best(choice if error < below else None, min(error, below), proven, found[0].prices)
    if proven:
        return best
    frontiers = _Frontiers(chain, errors, found)
    for most in _ROUNDS:
        best = frontiers.search(best, most)
        if best.proven:
            break
    return best


def _just_under(error: float) -> float:
    """Return the largest error that counts as smaller."""
    return error * (1 - _TOLERANCE)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Partial choices up to one position."""

    cost: Counts  # (n, n_limits), exact
    error: Floats  # (n,)
    bound: Floats  # (n,): no completion has a smaller sum of errors
    width: Counts  # (n,), index of the width chosen at this position
    parent: Counts  # (n,), row of the label before that it extends

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "_Labels":
        return _Labels(self.cost[rows], self.error[rows], self.bound[rows], self.width[rows], self.parent[rows])

    def __len__(self) -> int:
        return len(self.error)


class _Frontiers:
    """Label setting on one chain with one set of errors, cut by the bounds of several sweeps, the best one first."""

    def __init__(self, chain: Chain, errors: Sequence[Floats], found: Sequence[Sweep]) -> None:
        self._chain = chain
        self._errors = errors
        self._rates = np.array([one.prices for one in found]) / chain.scale  # (n_sweeps, n_limits), per unit
        #: Per position, the least priced cost of what follows, less that of the room, ``(n_sweeps, n_widths)``.
        self._tails = [
            np.array([tail - one.offset for one, tail in zip(found, tails, strict=True)])
            for tails in zip(*(one.tails for one in found), strict=True)
        ]
        through = []
        for one in found:
            heads = chain.heads(one.own, one.prices)
            through.append([h + own + t - one.offset for h, own, t in zip(heads, one.own, one.tails, strict=True)])
        #: Per position, a lower bound on the error of all choices with each width, ``(n_widths,)``.
        self._through = [np.max(bounds, axis=0) for bounds in zip(*through, strict=True)]

    def search(self, known: Best, most: int) -> Best:
        """Return the best choice, `known` if none beats it; of more than `most` labels the least promising go."""
        n_limits = len(self._chain.room)
        none = np.zeros(1, dtype=np.int64)
        labels = _Labels(np.zeros((1, n_limits), dtype=np.int64), np.zeros(1), np.zeros(1), none, none)
        steps: list[_Labels] = []
        below = _just_under(known.error)
        most = min(most, max(_FEWEST, _MOST_EXTENSIONS // max(1, sum(int((t < below).sum()) for t in self._through))))
        proven = True
        for position in range(len(self._chain)):
            labels = self._extend(labels, position, below)
            labels = labels[_frontier(labels, self._kinds(position, labels.width))]
            if len(labels) > most:
                proven = False
                labels = labels[np.sort(np.argsort(labels.bound, kind="stable")[:most])]
            steps.append(labels)
        if not (labels.error < below).any():
            return replace(known, proven=proven)
        row = int(np.lexsort((*labels.cost.T[::-1], labels.error))[0])
        error, choice = float(labels.error[row]), []
        for labels in reversed(steps):
            choice.append(int(labels.width[row]))
            row = int(labels.parent[row])
        return Best(np.array(choice[::-1], dtype=np.int64), error, proven, known.prices)

    def _kinds(self, position: int, width: Counts) -> Counts:
        """Return a number per label, the same for those of which all that follows costs the same."""
        link = self._chain.links[position] if position < len(self._chain.links) else None
        return np.zeros_like(width) if link is None else link.kinds[width]

    def _extend(self, labels: _Labels, position: int, below: float) -> _Labels:
        """Extend every label by every width of `position` that can lead to a sum of errors under `below`."""
        widths = np.flatnonzero(self._through[position] < below)
        size = max(1, _MOST_CANDIDATES // max(1, len(widths)))
        parts = [
            self._extended(labels[start : start + size], start, position, widths, below)
            for start in range(0, max(1, len(labels)), size)
        ]
        if len(parts) == 1:
            return parts[0]
        names = ("cost", "error", "bound", "width", "parent")
        return _Labels(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _extended(self, labels: _Labels, start: int, position: int, widths: Counts, below: float) -> _Labels:
        """Extend `labels`, which begin at row `start`, by `widths`, given as indices."""
        chain, tails = self._chain, self._tails[position]
        cost = labels.cost[:, None, :] + chain.costs[position][widths]  # (n, n_widths, n_limits)
        link = chain.links[position - 1] if position else None
        if link is not None:
            for limit, table in enumerate(link.costs):
                cost[:, :, limit] += table[:, widths][labels.width]
        error = labels.error[:, None] + self._errors[position][widths]
        bound = error + cost @ self._rates[0] + tails[0][widths]
        fits = (cost + chain.following[position][widths] <= chain.room).all(axis=2)
        row, column = np.nonzero(fits & (bound < below))
        cost, error, width = cost[row, column], error[row, column], widths[column]
        spent = cost @ self._rates.T  # (n, n_sweeps)
        bound = error + (spent + tails[:, width].T).max(axis=1)
        keep = bound < below
        return _Labels(cost[keep], error[keep], bound[keep], width[keep], (start + row)[keep])


def _frontier(labels: _Labels, state: Counts) -> NDArray[np.int64]:
    """Return the rows of the labels that are not dominated, by cost; apart for every `state`, ``(n_labels,)``.

    With one limit these are all; with two, most that are dominated go; with more, one label per cost vector is kept,
    and bounds do the rest.
    """
    rank = np.unique(labels.error, return_inverse=True)[1]
    order = np.lexsort((rank, *labels.cost.T[::-1], state))
    keep = np.ones(len(order), dtype=bool)
    if labels.cost.shape[1] == 1:
        level = rank[order] - state[order] * (len(order) + 1)  # every state starts below the one before
        keep[1:] = level[1:] < np.minimum.accumulate(level)[:-1]
        return order[keep]
    cost, states = labels.cost[order], state[order]
    keep[1:] = (states[1:] != states[:-1]) | (cost[1:] != cost[:-1]).any(axis=1)
    order = order[keep]
    if labels.cost.shape[1] == 2:
        ends = np.flatnonzero(np.diff(state[order], append=-1)) + 1
        parts = np.split(order, ends[:-1])
        order = np.concatenate([part[~_dominated(labels.cost[part, 1], rank[part])] for part in parts])
    return order


def _dominated(cost: Counts, rank: Counts) -> NDArray[np.bool_]:
    """Tell of which rows one before costs no more and ranks no worse; some such rows may be missed, ``(n,)``."""
    dominated = np.zeros(len(cost), dtype=np.bool_)
    if len(cost) <= _BLOCK:
        return _dominated_within(cost, rank)
    steps = np.unique(np.quantile(cost, np.linspace(0, 1, _STEPS), method="lower"))
    reached, passed = np.searchsorted(steps, cost), np.searchsorted(steps, cost, side="right") - 1
    best = np.full(len(steps), len(cost) + int(rank.max()) + 1)  # least rank of those before that cost at most a step
    for start in range(0, len(cost), _BLOCK):
        block = slice(start, start + _BLOCK)
        dominated[block] = (best[passed[block]] <= rank[block]) | _dominated_within(cost[block], rank[block])
        np.minimum.at(best, reached[block], rank[block])
        best = np.minimum.accumulate(best)
    return dominated


def _dominated_within(cost: Counts, rank: Counts) -> NDArray[np.bool_]:
    """Tell of which rows one before costs no more and ranks no worse, all pairs compared, ``(n,)``."""
    better = (cost[:, None] <= cost) & (rank[:, None] <= rank)
    return np.asarray((better & _EARLIER[: len(cost), : len(cost)]).any(axis=0))
