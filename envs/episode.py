"""One walk through the groups of a problem, first to last, as AMC decides them (He et al. 2018, arXiv 1802.03494)."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.quantities import LATENCY
from autoprune.envs.layer_features import LayerFeatures
from autoprune.envs.layerwise_problem import LayerwiseProblem


class Episode:
    """Decides one group after another; behind the action wall no walk can end over budget.

    The wall narrows a group further than asked, to the widest allowed width at which the limits hold with all later
    groups at their smallest. It tries real widths against real costs, so it is exact for any cost model, stairs of a
    latency table included, and for several limits at once; and as the smallest width held the limits one group before,
    there always is one.
    """

    def __init__(self, problem: LayerwiseProblem[object], features: LayerFeatures, *, wall: bool = True) -> None:
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
        return len(self._kept) == len(self._problem.widths)

    def observation(self) -> NDArray[np.float32]:
        """Return the features, ``(11,)``, of the group to decide next; of the last group when all are decided."""
        return self._features.at(self._kept)

    def decide(self, ratio: float) -> float:
        """Decide the next group and return the ratio that was really removed, after rounding and wall.

        Args:
            ratio: Fraction to remove, 0 to 1; rounded to the nearest allowed width, of two equally near the smaller.

        """
        assert not self.done, "every group is decided"
        width = self._problem.widths[len(self._kept)]
        size = int(width[-1])
        at = int(np.argmin(np.abs(width - (1 - ratio) * size)))
        self._kept.append(int(width[self._behind_the_wall(at) if self._wall else at]))
        return 1 - self._kept[-1] / size

    def _behind_the_wall(self, asked: int) -> int:
        """Return the largest index up to `asked` of an allowed width that holds the limits, later groups smallest."""
        index = len(self._kept)
        width = self._problem.widths[index]
        counts = self._problem.smallest()
        counts[:index] = self._kept

        def exceeds(at: int) -> bool:
            counts[index] = width[at]
            return not self._problem.fits(counts)

        if not exceeds(asked):
            return asked
        if LATENCY in self._problem.limits:  # stairs, not always upwards
            return next(at for at in range(asked - 1, -1, -1) if at == 0 or not exceeds(at))
        return max(0, bisect_right(range(asked), 0, key=exceeds) - 1)
