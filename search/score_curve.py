"""The score of a pruned network as a function of its reconstruction errors, fitted to trials, with an interval.

Errors of single layers add up: to first order the loss of the whole network rises linearly with the sum of its layers'
relative errors (linearity theorem, Malinovskii et al. 2024, 2411.17525, section 3; SPDY, 2201.13096, allocates by such
sums). Here the logit of the score falls along a line over that sum, which starts at the unpruned network.

The interval is conformal (Lei et al. 2018, 1604.04173, section 5.2; Barber et al. 2021, 1905.02928, section 1: the
jackknife): a quantile of the trials' residuals, each trial left out of the line that it is held against, in units of
the deviation expected at its error. It is meant for one more network of the kind of the trials. An allocation for
another budget is not quite that: beyond the trials, what the line could bend by is added.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from autoprune.errors import SearchError

Floats = NDArray[np.float64]

#: Probability with which an interval is meant to hold the score.
LEVEL = 0.9

#: Power of the error along which the logit falls: agreement is first lost by images on the edge between two classes,
#: as many as the outputs move (the root of the error), accuracy once they move far.
POWER = {"top1": 1.0, "agreement": 0.75}

#: Score of the unpruned network above which all scores are scaled down to it: where nearly nothing is wrong, the logit
#: knows no bound, but the first images are lost at once. Agreement with the unpruned network starts at 1.
CEILING = 0.9

#: Share by which the slopes of single networks differ, as expected before any was seen.
SPREAD = 0.15

#: Share by which the slope may change for every factor of e in the error, beyond the trials.
BEND = 0.2

#: Errors of the trials between which the curve is held by them, as quantiles.
_HELD = (0.1, 0.9)

#: Half the width of the interval of a normal distribution, in standard deviations.
_NORMAL = float(norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True, slots=True)
class Prediction:
    """A score that was not measured.

    Attributes:
        score: What is expected.
        low: Lower end of the interval.
        high: Upper end.
        extrapolated: Whether the error is above that of every trial: what is known lies elsewhere.

    """

    score: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """Scores as a function of the sum of reconstruction errors; never rises.

    Attributes:
        top: Score at error 0: of the unpruned network.
        slope: How fast the logit falls, per unit of error to that power.
        power: See :data:`POWER`.
        images: Images that the scores are of.
        held: Errors between which trials hold the curve.
        largest: Largest error of the trials.
        quantile: Of the trials' residuals, in units of what was expected there.

    """

    top: float
    slope: float
    power: float
    images: int
    held: tuple[float, float]
    largest: float
    quantile: float

    @classmethod
    def fit(cls, errors: Floats, scores: Floats, *, top: float, images: int, power: float = 1.0) -> "ScoreCurve":
        """Fit the curve to trials.

        Args:
            errors: Sum of reconstruction errors of each, above 0, ``(n_trials,)``.
            scores: Score of each on the same images, 0 to 1, ``(n_trials,)``.
            top: Score of the unpruned network.
            images: Number of images.
            power: See :data:`POWER`.

        Raises:
            SearchError: No trial.

        """
        if len(errors) == 0:
            raise SearchError("a prediction needs at least one trial that was pruned, found none")
        low, high = np.quantile(errors, _HELD).tolist()
        curve = cls(top, 0.0, power, images, (low, high), float(errors.max()), 0.0)
        drops = curve._height(np.zeros(1)) - curve._to_height(scores)
        x = errors**power
        for _ in range(3):  # the weights depend on the slope, but hardly
            weights = curve._scale(errors) ** -2
            slope = float((weights * x * drops).sum() / (weights * x**2).sum())
            curve = replace(curve, slope=max(0.0, slope))
        return replace(curve, quantile=curve._quantile(errors, drops))

    def at(self, error: float) -> Prediction:
        """Return the score at a sum of errors, with its interval."""
        at = np.array([error])
        low, high = self.held
        beyond = abs(math.log(error / min(max(error, low), high))) if error > 0 else 0.0
        # Where the trials lost nothing that can be counted, the line may still fall as slowly as that.
        steepest = self.slope + float(self._scale(np.array([high]))[0]) / high**self.power
        bend = BEND * beyond * steepest * error**self.power
        width = math.hypot(self.quantile * float(self._scale(at)[0]), _NORMAL * bend)
        middle = float(self._height(at)[0])
        ends = self._to_score(np.array([middle - width, middle, middle + width])).tolist()
        return Prediction(score=ends[1], low=ends[0], high=ends[2], extrapolated=error > self.largest)

    @property
    def _unit(self) -> float:
        """What scores are multiplied by before the logit is taken."""
        return min(1.0, CEILING / max(self.top, 0.5 / self.images))

    def _to_height(self, scores: Floats) -> Floats:
        """Return the logits of scaled scores; counts of 0 and of all images are half an image away."""
        scaled = scores * self._unit
        return np.asarray(logit((scaled * self.images + 0.5) / (self.images + 1)))

    def _to_score(self, heights: Floats) -> Floats:
        """Return the scores of logits."""
        scaled = (expit(heights) * (self.images + 1) - 0.5) / self.images
        return np.asarray(np.clip(scaled / self._unit, 0.0, 1.0))

    def _height(self, errors: Floats) -> Floats:
        """Return the logits at sums of errors."""
        return self._to_height(np.array([self.top])) - self.slope * errors**self.power

    def _scale(self, errors: Floats) -> Floats:
        """Return the standard deviation expected of logits: of counting on so many images, and of the slope."""
        share = expit(self._height(errors))
        score = (share / self._unit).clip(max=1 - 0.5 / self.images)
        counting = score * (1 - score) / self.images * (self._unit / (share * (1 - share))) ** 2
        return np.asarray(np.sqrt(counting + (SPREAD * self.slope * errors**self.power) ** 2))

    def _quantile(self, errors: Floats, drops: Floats) -> float:
        """Return the conformal quantile of the residuals, each left out of the slope that it is held against."""
        x, scale = errors**self.power, self._scale(errors)
        products, squares = x * drops / scale**2, x**2 / scale**2
        others = squares.sum() - squares
        slopes = np.divide(products.sum() - products, others, out=np.full(len(errors), self.slope), where=others > 0)
        residuals = np.sort(np.abs(drops - np.maximum(slopes, 0.0) * x) / scale)
        rank = math.ceil((len(errors) + 1) * LEVEL)
        return float(residuals[rank - 1]) if rank <= len(errors) else max(_NORMAL, float(residuals[-1]))
