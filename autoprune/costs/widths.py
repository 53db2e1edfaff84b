"""Which counts a group may keep."""

import math

import numpy as np

from autoprune.costs.sides import Counts

#: Most that may be removed of one group unless something else is asked for; a group never loses all its channels.
MAX_RATIO = 0.9


def allowed_widths(n_units: int, round_to: int, max_ratio: float) -> Counts:
    """Return the counts a group of `n_units` may keep: multiples of `round_to` from the floor up, and all."""
    floor = max(1, math.ceil(round((1 - max_ratio) * n_units, 9)))
    first = math.ceil(floor / round_to) * round_to
    return np.array([*range(first, n_units, round_to), n_units], dtype=np.int64)
