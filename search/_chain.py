"""Channel groups in a chain, each sharing costs at most with the next, and the Lagrangian relaxation of their budget.

The relaxed problem puts a price on every limited quantity (Everett 1963, Fisher 1981) and is solved exactly by one
sweep along the chain, as Viterbi's algorithm does. A sweep yields a choice of widths, a lower bound on the error of
every choice within the limits, and for every width of every group the least priced cost of all that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from autoprune.search._limited_costs import Link

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_SWEEPS = 40

#: Bounds are lowered by this share of what the room is worth: rounding must not cut the best choice.
_SLACK = 1e-15

#: Highest price while no choice is known that fits.
_HIGHEST_PRICE = 1e6


class Chain:
    """Groups in such an order, with exact integer costs of any kind: wider groups need not cost more.

    Attributes:
        costs: Per position, the cost of each width by itself, ``(n_widths, n_limits)``.
        links: Per position but the last, what pairs of its widths and those of the next cost; None where two paths
            meet.
        room: What all of it may cost at most, ``(n_limits,)``.
        following: Per position, the least cost of what follows each width, links included, ``(n_widths, n_limits)``,
            for each limit by itself.
        least: What the cheapest choice costs in each limit, ``(n_limits,)``.
        corners: The first width everywhere, and per limit the cheapest choice, indices, ``(n,)`` each.

    """

    def __init__(self, costs: Sequence[Counts], links: Sequence[Link | None], room: Counts) -> None:
        """Find the cheapest ends from every width on."""
        self.costs = tuple(costs)
        self.links = tuple(links)
        self.room = room
        following = [np.zeros_like(self.costs[-1])]
        for position in reversed(range(len(self.costs) - 1)):
            rest, link = self.costs[position + 1] + following[-1], self.links[position]
            following.append(
                np.full_like(self.costs[position], rest.min(axis=0)) if link is None else _cheapest_after(link, rest)
            )
        self.following = tuple(reversed(following))
        self.least = np.asarray((self.costs[0] + self.following[0]).min(axis=0), dtype=np.int64)
        # Prices are per share of the room.
        self.scale = np.maximum(room, 1)
        self.full_room = room / self.scale
        sizes = [len(cost) for cost in self.costs]
        self._all = np.concatenate(self.costs)
        self._shares = self._all / self.scale
        self._ends = np.cumsum(sizes)[:-1]
        self._starts = np.cumsum([0, *sizes[:-1]])

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.costs)

    @cached_property
    def corners(self) -> list[Counts]:
        """Choices worth knowing, whether they fit or not."""
        found = [np.zeros(len(self), dtype=np.int64)]
        for limit in range(len(self.room)):
            choice: list[int] = []
            for position, (cost, after) in enumerate(zip(self.costs, self.following, strict=True)):
                rest = cost[:, limit] + after[:, limit]
                link = self.links[position - 1] if position else None
                choice.append(int(np.argmin(rest if link is None else rest + link.costs[limit, choice[-1]])))
            found.append(np.array(choice, dtype=np.int64))
        return found

    def cost(self, choice: Counts) -> Counts:
        """Return the cost of one width per position, given as indices, ``(n_limits,)``."""
        cost = self._all[self._starts + choice].sum(axis=0)
        for link, one, other in zip(self.links, choice[:-1].tolist(), choice[1:].tolist(), strict=True):
            if link is not None:
                cost = cost + link.costs[:, one, other]
        return np.asarray(cost, dtype=np.int64)

    def excess(self, choice: Counts) -> Floats:
        """Return by which share of its room a choice exceeds each limit, ``(n_limits,)``; none above 0 if it fits."""
        return np.asarray((self.cost(choice) - self.room) / self.scale)

    def priced(self, errors: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the error of each width plus its priced cost, ``(n_widths,)``."""
        return np.split(np.concatenate(errors) + self._shares @ prices, self._ends)

    def tails(self, own: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the least sum of `own` and priced links of what follows each width, ``(n_widths,)``."""
        tails = [np.zeros_like(own[-1])]
        for position in reversed(range(len(own) - 1)):
            after, table = own[position + 1] + tails[-1], self._priced_link(position, prices)
            if table is None:
                tails.append(np.full_like(own[position], after.min()))
            else:
                tails.append((table + after).min(axis=1))
        return tails[::-1]

    def heads(self, own: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the least sum of `own` and priced links of what precedes each width, ``(n_widths,)``."""
        heads = [np.zeros_like(own[0])]
        for position in range(len(own) - 1):
            before, table = own[position] + heads[-1], self._priced_link(position, prices)
            if table is None:
                heads.append(np.full_like(own[position + 1], before.min()))
            else:
                heads.append((table + before[:, None]).min(axis=0))
        return heads

    def _priced_link(self, position: int, prices: Floats) -> Floats | None:
        """Return the priced costs of pairs of a position and the next, ``(n_widths, n_widths)``; None if all are 0."""
        link = self.links[position]
        return None if link is None else link.priced(prices / self.scale)


def _cheapest_after(link: Link, rest: Counts) -> Counts:
    """Return the least cost of all that follows each width, ``(n_widths, n_limits)``.

    `rest` is that of every width of the next position and all after it, ``(n_next, n_limits)``.
    """
    least = []
    for limit, (table, cheapest) in enumerate(zip(link.costs, link.least.T, strict=True)):
        best = int(rest[:, limit].argmin())
        if (table[:, best] == cheapest).all():  # cheapest on both counts
            least.append(cheapest + rest[best, limit])
        else:
            least.append((table + rest[:, limit]).min(axis=1))
    return np.stack(least, axis=-1)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The relaxed optimum at given prices.

    Attributes:
        prices: Error per share of each limit's room, ``(n_limits,)``.
        offset: What all the room is worth at these prices, and as much more as rounding may take from a bound.
        own: Per position, the error of each width plus its priced cost, ``(n_widths,)``.
        tails: Per position, the least priced cost of what follows each width, ``(n_widths,)``.
        bound: No choice within the limits has a smaller sum of errors.
        choice: The relaxed optimum, indices into the widths, ``(n,)``; of equally good widths the smallest.
        error: Its sum of errors.
        excess: By which share of its room each limit is exceeded, ``(n_limits,)``; none is above 0 if it fits.

    """

    prices: Floats
    offset: float
    own: list[Floats]
    tails: list[Floats]
    bound: float
    choice: Counts
    error: float
    excess: Floats

    @property
    def fits(self) -> bool:
        """Whether the choice holds all limits."""
        return bool((self.excess <= 0).all())


def sweep(chain: Chain, errors: Sequence[Floats], prices: Floats) -> Sweep:
    """Minimise errors plus priced costs along `chain`, from the last position to the first."""
    own = chain.priced(errors, prices)
    tails = chain.tails(own, prices)
    rates = prices / chain.scale
    choice = [int(np.argmin(own[0] + tails[0]))]
    for position in range(1, len(own)):
        link, rest = chain.links[position - 1], own[position] + tails[position]
        choice.append(int(np.argmin(rest if link is None else rest + link.priced_beside(choice[-1], rates))))
    found = np.array(choice, dtype=np.int64)
    offset = float(prices @ chain.full_room) * (1 + _SLACK)
    bound = float((own[0] + tails[0]).min() - offset)
    return Sweep(prices, offset, own, tails, bound, found, total(errors, found), chain.excess(found))


def sweeps(chain: Chain, errors: Sequence[Floats], below: float, prices: Floats | None = None) -> list[Sweep]:
    """Sweep at better and better prices, by cutting planes (Kelley 1960), beginning at `prices` if given.

    Ends where the best bound is as high as prices can make it, nearly so compared with what the best fitting choice
    leaves open, or high enough to show that no choice has an error under `below`.
    """
    found = [sweep(chain, errors, prices)] if prices is not None else []
    if found and found[0].bound >= below:
        return found
    found.append(sweep(chain, errors, np.zeros(len(chain.room))))
    if found[-1].fits:  # the smallest errors of all widths
        return found
    planes = [(total(errors, corner), chain.excess(corner)) for corner in chain.corners]
    planes += [(one.error, one.excess) for one in found]
    while len(found) < _MOST_SWEEPS:
        best = max(one.bound for one in found)
        known = min([below, *(error for error, excess in planes if (excess <= 0).all())])
        at, promised = _best_prices(planes)
        if best >= below or (np.isfinite(known) and promised - best <= 0.01 * (known - best)):
            break
        found.append(sweep(chain, errors, at))
        planes.append((found[-1].error, found[-1].excess))
    return found


def total(errors: Sequence[Floats], choice: Counts) -> float:
    """Return the sum of errors of one width per position, given as indices, ``(n,)``."""
    return float(sum(error[i] for error, i in zip(errors, choice, strict=True)))


def _best_prices(planes: Sequence[tuple[float, Floats]]) -> tuple[Floats, float]:
    """Return the prices >= 0 at which the lowest plane ``error + excess @ prices`` is highest, and its height."""
    errors, slopes = np.array([error for error, _ in planes]), np.array([excess for _, excess in planes])
    n_limits = slopes.shape[1]
    if n_limits == 1:
        rising = slopes[:, 0] > 0
        rise = np.subtract.outer(errors[~rising], errors[rising])
        crossings = (rise / np.subtract.outer(-slopes[~rising, 0], -slopes[rising, 0])).ravel()
        heights = (errors + np.maximum(0.0, crossings)[:, None] * slopes[:, 0]).min(axis=1)
        best = int(np.argmax(heights))
        return np.maximum(0.0, crossings[[best]]), float(heights[best])
    bounded = (slopes <= 0).all(axis=1).any()  # by a choice that fits
    found = linprog(
        [*np.zeros(n_limits), -1.0],
        np.column_stack([-slopes, np.ones(len(errors))]),
        errors,
        bounds=[*[(0, None if bounded else _HIGHEST_PRICE)] * n_limits, (None, None)],
    )
    assert found.status == 0, found.message
    assert found.x is not None
    return np.maximum(0.0, found.x[:-1]), float(found.x[-1])
