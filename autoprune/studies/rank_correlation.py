"""How well criteria rank channels: rank correlations with the leave-one-out oracle, per layer and over all layers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autoprune.studies.oracle import Oracle

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Correlation of two rankings; None where one of them tells nothing apart.

    Attributes:
        spearman: Spearman's rho.
        kendall: Kendall's tau-b.
        channels: How many were ranked.

    """

    spearman: float | None
    kendall: float | None
    channels: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a criterion agrees with the oracle.

    Attributes:
        layers: By group.
        together: Over the channels of all groups, scores as they are given.
        normalised: The same, scores divided by their l2 norm over all channels of the group (1611.06440, section 2.2).

    """

    layers: Mapping[str, RankCorrelation]
    together: RankCorrelation
    normalised: RankCorrelation


def agreement(oracle: Oracle, scores: Mapping[str, Values]) -> Agreement:
    """Correlate scores with the absolute loss changes of the oracle ("oracle-abs", 1611.06440, section 2.1).

    Args:
        oracle: What was measured.
        scores: By group, of all its channels, ``(n_channels,)``.

    """
    truth = {name: np.abs(changes) for name, changes in oracle.changes.items()}
    own = {name: scores[name][list(oracle.channels[name])] for name in truth}
    scaled = {name: _normalised(scores[name])[list(oracle.channels[name])] for name in truth}
    everything = np.concatenate(list(truth.values()))
    return Agreement(
        {name: rank_correlation(own[name], truth[name]) for name in truth},
        rank_correlation(np.concatenate(list(own.values())), everything),
        rank_correlation(np.concatenate(list(scaled.values())), everything),
    )


def rank_correlation(a: Values, b: Values) -> RankCorrelation:
    """Correlate two rankings of the same channels, ``(n,)`` each."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return RankCorrelation(None, None, len(a))
    return RankCorrelation(float(stats.spearmanr(a, b).statistic), float(stats.kendalltau(a, b).statistic), len(a))


def _normalised(values: Values) -> Values:
    """Return the values divided by their l2 norm; all 0 stays so."""
    size = float(np.sqrt(np.sum(values**2)))
    return values / size if size > 0 else values
