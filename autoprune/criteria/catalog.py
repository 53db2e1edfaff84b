"""The criteria by name: what each means, what it needs and where it is from. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from autoprune.errors import UnknownNameError

#: What is scored: the units of channel groups, or single weights of convolutions and linear layers.
Granularity = Literal["channel", "weight"]

#: What a criterion cannot do without. Gradients are those of the cross entropy where labels are needed too.
Need = Literal["images", "labels", "gradients", "batch norm", "relu"]

#: The criterion that orders channels by the error they leave after reconstruction; it is no score of a channel alone,
#: and lives in :mod:`autoprune.reconstruction.orders`.
OBS = "obs"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One way to score.

    Attributes:
        name: What users call it.
        meaning: What the score is, in one line. A channel's members are the weights that go with it.
        granularities: What it can score.
        needs: What it cannot do without; nothing means that the weights are enough.
        paper: Where it is from.
        arxiv: The paper's number; None where it is not on arXiv.
        one_scale: Whether scores of channels of different groups compare as they are, so that one ranking of all makes
            sense; others are divided by their root mean square over the group first.

    """

    name: str
    meaning: str
    granularities: tuple[Granularity, ...]
    needs: tuple[Need, ...]
    paper: str
    arxiv: str | None
    one_scale: bool = True

    @property
    def measured(self) -> bool:
        """Whether images are needed."""
        return "images" in self.needs


_CHANNEL: tuple[Granularity, ...] = ("channel",)
_BOTH: tuple[Granularity, ...] = ("channel", "weight")
_LOSS: tuple[Need, ...] = ("images", "labels", "gradients")

_ALL = (
    Criterion(
        OBS,
        "error that the layers behind leave after reconstruction, channels removed one after another",
        _CHANNEL,
        ("images",),
        "Frantar et al. 2022, Kurtic et al. 2023",
        "2208.11580",
    ),
    Criterion(
        "l1",
        "sum of |w| over the members",
        _BOTH,
        (),
        "Li et al. 2017; weights: Han et al. 2015",
        "1608.08710",
        one_scale=False,
    ),
    Criterion(
        "l2", "root of the sum of w^2 over the members", _CHANNEL, (), "He et al. 2018", "1808.06866", one_scale=False
    ),
    Criterion(
        "fpgm",
        "sum of the distances to all other filters of the group: the one nearest to the geometric median goes first",
        _CHANNEL,
        (),
        "He et al. 2019",
        "1811.00250",
        one_scale=False,
    ),
    Criterion(
        "bn-gamma", "mean |gamma| of the batch norms", _CHANNEL, ("batch norm",), "Liu et al. 2017", "1708.06519"
    ),
    Criterion(
        "lamp",
        "w^2 as a share of all w^2 of the layer that are no smaller; a channel: the same of its members' sum of w^2",
        _BOTH,
        (),
        "Lee et al. 2021",
        "2010.07611",
    ),
    Criterion("random", "drawn at random, the same for the same seed", _BOTH, (), "Li et al. 2022", "2205.05676"),
    Criterion(
        "next-layer",
        "sum over the layers that read the channel: its share of their |w|",
        _CHANNEL,
        (),
        "this project, after Luo et al. 2017",
        "1707.06342",
        one_scale=False,
    ),
    Criterion("gradient", "sum of |g| over the members", _BOTH, _LOSS, "Evci et al. 2020", "1911.11134"),
    Criterion(
        "taylor",
        "sum of (g w)^2 over the members, the mean over minibatches",
        _BOTH,
        _LOSS,
        "Molchanov et al. 2019",
        "1906.10771",
    ),
    Criterion(
        "group-taylor",
        "(sum of g w over the members)^2, the mean over minibatches",
        _CHANNEL,
        _LOSS,
        "Molchanov et al. 2019",
        "1906.10771",
    ),
    Criterion(
        "taylor-gate",
        "squared derivative by a gate on the channel, behind batch norm, the mean over minibatches",
        _CHANNEL,
        _LOSS,
        "Molchanov et al. 2019",
        "1906.10771",
    ),
    Criterion(
        "fisher",
        "sum of w^2 F / 2 over the members, F the mean over images of g^2: the loss gained to second order",
        _BOTH,
        _LOSS,
        "Theis et al. 2018",
        "1801.05787",
    ),
    Criterion(
        "snip", "sum of |g w| over the members, g of all images at once", _BOTH, _LOSS, "Lee et al. 2019", "1810.02340"
    ),
    Criterion(
        "grasp",
        "sum of w (H g) over the members: what gradients lose in norm",
        _BOTH,
        _LOSS,
        "Wang et al. 2020",
        "2002.07376",
    ),
    Criterion(
        "synflow",
        "sum over the members of their part in all paths through |w|; one pass of an image of ones",
        _BOTH,
        ("gradients",),
        "Tanaka et al. 2020",
        "2006.05467",
    ),
    Criterion(
        "apoz",
        "1 - APoZ: the share of activations behind the channel's ReLUs that are above 0",
        _CHANNEL,
        ("images", "relu"),
        "Hu et al. 2016",
        "1607.03250",
    ),
    Criterion(
        "mean-activation",
        "mean of the activations behind the channel's ReLUs",
        _CHANNEL,
        ("images", "relu"),
        "Molchanov et al. 2017",
        "1611.06440",
        one_scale=False,
    ),
)

#: All criteria by name.
CRITERIA: Mapping[str, Criterion] = MappingProxyType({criterion.name: criterion for criterion in _ALL})


def criterion_names(granularity: Granularity) -> tuple[str, ...]:
    """Return the names of all criteria that score channels, or single weights."""
    return tuple(name for name, criterion in CRITERIA.items() if granularity in criterion.granularities)


def find_criterion(name: str, granularity: Granularity) -> Criterion:
    """Return the criterion called `name`.

    Raises:
        UnknownNameError: No criterion of this name scores channels, or single weights.

    """
    names = criterion_names(granularity)
    if name not in names:
        raise UnknownNameError(f"{granularity} criterion" if name in CRITERIA else "criterion", name, names)
    return CRITERIA[name]
