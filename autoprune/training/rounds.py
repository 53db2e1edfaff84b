"""How much is kept after each round of pruning: in even steps, or by the same share of what is left."""

import itertools
import math
from collections.abc import Sequence

from autoprune.errors import SearchError

#: Share of the weights that is kept after each round, falling; the last one is the target.
Shares = tuple[float, ...]


def linear(final: float, rounds: int) -> Shares:
    """Return the schedule that removes as much in every round, until the share `final` is kept.

    Raises:
        SearchError: `final` is no share, or there are no rounds.

    """
    _check(final, rounds)
    return (*(1 - (1 - final) * done / rounds for done in range(1, rounds)), final)


def exponential(final: float, rounds: int) -> Shares:
    """Return the schedule that keeps the same share of what is left in every round, until `final` is kept of all.

    So lottery tickets are found (Frankle & Carbin 2019, 1803.03635), and SynFlow prunes (Tanaka 2020, 2006.05467).

    Raises:
        SearchError: `final` is no share, or there are no rounds.

    """
    _check(final, rounds)
    return (*(final ** (done / rounds) for done in range(1, rounds)), final)


def check_shares(shares: Sequence[float]) -> None:
    """Make sure that a schedule keeps less and less.

    Raises:
        SearchError: No round, a share out of range, or one above the one before it.

    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise SearchError(f"a schedule needs kept shares above 0 and at most 1, found {tuple(shares)}")
    if any(after > before for before, after in itertools.pairwise(shares)):
        raise SearchError(f"the kept shares of a schedule must not rise, found {tuple(shares)}")


def kept_count(total: int, share: float) -> int:
    """Return how many of `total` a share keeps: the nearest whole number, at least 1."""
    return max(1, math.floor(total * share + 0.5))


def removed_count(total: int, share: float) -> int:
    """Return how many of `total` go where a share of them does: those that :func:`kept_count` does not keep."""
    return total - kept_count(total, 1 - share)


def _check(final: float, rounds: int) -> None:
    """Refuse what is no schedule."""
    check_shares((final,))
    if rounds < 1:
        raise SearchError(f"pruning takes at least 1 round, found {rounds}")
