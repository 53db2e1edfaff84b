"""Channel groups in a chain, each multiplying at most with the next, and the Lagrangian relaxation of their budget.

The relaxed problem puts a price on every limited quantity (Everett 1963, Fisher 1981) and is solved exactly by one
sweep along the chain, as Viterbi's algorithm does. A sweep yields a choice of widths, a lower bound on the error of
every choice within the limits, and for every width of every group the least priced cost of all that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_SWEEPS = 40


class Chain:
    """Groups in such an order, with exact integer costs; smallest widths fit.

    Attributes:
        widths: Per position, the allowed kept counts, ascending, ``(n_widths,)``.
        costs: Per position, the cost of each width by itself, ``(n_widths, n_limits)``, never decreasing.
        links: Cost per pair of units of a position and the next, ``(n, n_limits)``; 0 where two paths meet.
        linked: Per position, whether its link is not 0.
        room: What all of it may cost at most, ``(n_limits,)``.
        following: Per position, the least cost of what follows each width, links included, ``(n_widths, n_limits)``.

    """

    def __init__(self, widths: Sequence[Counts], costs: Sequence[Counts], links: Counts, room: Counts) -> None:
        self.widths = tuple(widths)
        self.costs = tuple(costs)
        self.links = links
        self.linked = tuple(bool(link.any()) for link in links)
        self.room = room
        following = [np.zeros_like(self.costs[-1])]
        for position in reversed(range(len(self.widths) - 1)):
            rest = self.costs[position + 1][0] + following[-1][0]
            following.append(rest + self.widths[position][:, None] * (self.widths[position + 1][0] * links[position]))
        self.following = tuple(reversed(following))
        # Prices are per share of the room.
        self.scale = np.maximum(room, 1)
        self.full_room = room / self.scale
        self._shares = np.concatenate(self.costs) / self.scale
        self._ends = np.cumsum([len(width) for width in self.widths])[:-1]
        self._products = [
            np.multiply.outer(a, b).astype(np.float64) if linked else None
            for a, b, linked in zip(self.widths, self.widths[1:], self.linked, strict=False)
        ]

    def cost(self, choice: Counts) -> Counts:
        """Return the cost of one width per position, given as indices into `widths`, ``(n_limits,)``."""
        kept = np.array([width[i] for width, i in zip(self.widths, choice, strict=True)], dtype=np.int64)
        own = np.array([cost[i] for cost, i in zip(self.costs, choice, strict=True)]).sum(axis=0)
        return np.asarray(own + (kept[:-1] * kept[1:]) @ self.links[:-1], dtype=np.int64)

    def priced(self, errors: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the error of each width plus its priced cost, ``(n_widths,)``."""
        return np.split(np.concatenate(errors) + self._shares @ prices, self._ends)

    def tails(self, own: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the least sum of `own` and priced links of what follows each width, ``(n_widths,)``."""
        slopes = (self.links / self.scale) @ prices
        tails = [np.zeros_like(own[-1])]
        for position in reversed(range(len(own) - 1)):
            after, product = own[position + 1] + tails[-1], self._products[position]
            if product is None or slopes[position] == 0:
                tails.append(np.full_like(own[position], after.min()))
            else:
                tails.append((product * slopes[position] + after).min(axis=1))
        return tails[::-1]

    def heads(self, own: Sequence[Floats], prices: Floats) -> list[Floats]:
        """Return per position the least sum of `own` and priced links of what precedes each width, ``(n_widths,)``."""
        slopes = (self.links / self.scale) @ prices
        heads = [np.zeros_like(own[0])]
        for position in range(len(own) - 1):
            before, product = own[position] + heads[-1], self._products[position]
            if product is None or slopes[position] == 0:
                heads.append(np.full_like(own[position + 1], before.min()))
            else:
                heads.append((product * slopes[position] + before[:, None]).min(axis=0))
        return heads


@dataclass(frozen=True, slots=True)
class Sweep:
    """The relaxed optimum at given prices.

    Attributes:
        prices: Error per share of each limit's room, ``(n_limits,)``.
        own: Per position, the error of each width plus its priced cost, ``(n_widths,)``.
        tails: Per position, the least priced cost of what follows each width, ``(n_widths,)``.
        bound: No choice within the limits has a smaller sum of errors.
        choice: The relaxed optimum, indices into the widths, ``(n,)``; of equally good widths the smallest.
        error: Its sum of errors.
        excess: By which share of its room each limit is exceeded, ``(n_limits,)``; none is above 0 if it fits.

    """

    prices: Floats
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
    slopes = (chain.links / chain.scale) @ prices
    choice = [int(np.argmin(own[0] + tails[0]))]
    for position in range(1, len(own)):
        link = slopes[position - 1] * chain.widths[position - 1][choice[-1]]
        choice.append(int(np.argmin(own[position] + tails[position] + link * chain.widths[position])))
    found = np.array(choice, dtype=np.int64)
    bound = float((own[0] + tails[0]).min() - prices @ chain.full_room)
    excess = (chain.cost(found) - chain.room) / chain.scale
    return Sweep(prices, own, tails, bound, found, total(errors, found), excess)


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
    smallest = np.zeros(len(chain.widths), dtype=np.int64)
    planes = [(total(errors, smallest), (chain.cost(smallest) - chain.room) / chain.scale)]
    planes += [(one.error, one.excess) for one in found]
    while len(found) < _MOST_SWEEPS:
        best = max(one.bound for one in found)
        known = min([below, planes[0][0], *(one.error for one in found if one.fits)])
        at, promised = _best_prices(planes)
        if best >= below or promised - best <= 0.01 * (known - best):
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
    found = linprog(
        [*np.zeros(n_limits), -1.0],
        np.column_stack([-slopes, np.ones(len(errors))]),
        errors,
        bounds=[*[(0, None)] * n_limits, (None, None)],
    )
    assert found.status == 0, found.message  # bounded: the smallest widths fit
    assert found.x is not None
    return np.maximum(0.0, found.x[:-1]), float(found.x[-1])
