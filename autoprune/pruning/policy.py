"""A pruning policy: one ratio per channel group."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autoprune.errors import SearchError


@dataclass(frozen=True, slots=True)
class PruningPolicy:
    """How much of every group is removed: ``ratios[g]`` in [0, 1) for group ``g`` of the problem, ``(n_groups,)``."""

    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        for index, ratio in enumerate(self.ratios):
            if not (math.isfinite(ratio) and 0.0 <= ratio < 1.0):
                raise SearchError(f"ratio {index} is {ratio}; expected the fraction removed, at least 0 and below 1")

    @classmethod
    def uniform(cls, ratio: float, n_groups: int) -> "PruningPolicy":
        """Return the policy that removes the same fraction of every group."""
        return cls((float(ratio),) * n_groups)

    @classmethod
    def of(cls, ratios: Iterable[float]) -> "PruningPolicy":
        """Return the policy with these ratios, ``(n_groups,)``, as plain floats."""
        return cls(tuple(float(ratio) for ratio in ratios))
