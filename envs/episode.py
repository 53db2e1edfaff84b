"""One walk through the groups of a problem, first to last, as AMC decides them (He et al. 2018, arXiv 1802.03494)."""

import numpy as np
from numpy.typing import NDArray

from autoprune.envs.layer_features import LayerFeatures
from autoprune.problem import PruningProblem


class Episode:
    """Decides one group after another; behind the action wall no walk can end over budget.

    The wall narrows a group further than asked, as far as needed so that the budget can still be met with all later
    groups at their smallest width. It tries the allowed widths one by one, so it is exact for any cost model, stairs of
    a latency table included, and for several limits at once.
    """

    def __init__(self, problem: PruningProblem, features: LayerFeatures, *, wall: bool = True) -> None:
        """Start with the whole network; `features` are those of `problem`. Without `wall` any width is accepted."""
        self._problem, self._features, self._wall = problem, features, wall
        self._kept: list[int] = []

    @property
    def kept(self) -> tuple[int, ...]:
        """Units kept of the groups decided so far."""
        return tuple(self._kept)

    @property
    def done(self) -> bool:
        """Whether every group is decided."""
        return len(self._kept) == len(self._problem.groups)

    def observation(self) -> NDArray[np.float32]:
        """Return the features, ``(11,)``, of the group to decide next; of the last group when all are decided."""
        return self._features.at(self._kept)

    def decide(self, ratio: float) -> float:
        """Decide the next group and return the ratio that was really removed, after rounding and wall.

        Args:
            ratio: Fraction to remove, 0 to 1; rounded to the nearest allowed width, of two equally near the smaller.

        """
        index = len(self._kept)
        width, size = self._problem.widths[index], len(self._problem.groups[index])
        at = int(np.argmin(np.abs(width - (1 - ratio) * size)))
        if self._wall:
            counts = self._problem.smallest()
            counts[:index] = self._kept
            counts[index] = width[at]
            while at > 0 and not self._problem.fits(counts):
                at -= 1
                counts[index] = width[at]
        self._kept.append(int(width[at]))
        return 1 - self._kept[-1] / size
