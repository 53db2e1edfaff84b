"""A cost as a polynomial of the kept counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QuadraticForm:
    """A cost as a polynomial of the kept counts: ``constant + linear @ kept + kept @ pairs @ kept``, exact.

    Attributes:
        constant: What stays when nothing is kept.
        linear: Per unit of each group, ``(n_groups,)``.
        pairs: Per pair of units of two groups, upper triangular, ``(n_groups, n_groups)``; all three never negative.

    """

    constant: int
    linear: Counts
    pairs: Counts

    def at(self, kept: Sequence[int] | Counts) -> int:
        """Return the cost of kept counts, ``(n_groups,)``."""
        counts = np.asarray(kept, dtype=np.int64)
        return self.constant + int(self.linear @ counts + counts @ self.pairs @ counts)
