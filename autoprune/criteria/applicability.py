"""Whether a criterion can score a network, and if not, why."""

from collections.abc import Sequence

from torch import nn

from autoprune.criteria.catalog import Criterion
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.errors import CriterionError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.batchnorm import is_restored
from autoprune.network.network import Network

#: Activations that are exactly 0 for half of their inputs.
RELUS = (nn.ReLU, nn.ReLU6)


def check_applicable(
    criterion: Criterion,
    network: Network,
    groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    *,
    data: CriterionData = NO_DATA,
) -> None:
    """Make sure that `criterion` can score the `chosen` groups of `network` with this data.

    Raises:
        CriterionError: It cannot; says why, and what to do.

    """
    check_network(criterion, network, groups, chosen)
    check_data(criterion, images=data.images is not None and len(data.images) > 0, labels=data.labels is not None)


def check_data(criterion: Criterion, *, images: bool = True, labels: bool) -> None:
    """Make sure that there is the data that `criterion` needs.

    Raises:
        CriterionError: There is not.

    """
    if criterion.measured and not images:
        raise CriterionError(
            f"criterion {criterion.name!r} is measured on images of the fit split, found none; give images, or choose "
            "a criterion that needs none, such as 'l2'"
        )
    if "labels" in criterion.needs and not labels:
        raise CriterionError(
            f"criterion {criterion.name!r} needs labels, the images have none; give images in one folder per class, or "
            "choose a criterion without labels, such as 'l2' or 'obs'"
        )


def check_network(
    criterion: Criterion, network: Network, groups: ChannelGroups, chosen: Sequence[ChannelGroup]
) -> None:
    """Make sure that `network` and the `chosen` groups have what `criterion` looks at.

    Raises:
        CriterionError: They have not; names the first group without.

    """
    if "labels" in criterion.needs and len(network.output_shape) != 1:
        raise CriterionError(
            f"criterion {criterion.name!r} needs a classifier (one row of class scores per image), found output shape "
            f"{network.output_shape}; choose a criterion without labels, such as 'l2'"
        )
    if "batch norm" in criterion.needs:
        why = "; one that was put back where a file had it folded is none" if _any_restored(network) else ""
        _check_behind(criterion, "trained batch norm", why, _units(network, groups, (nn.BatchNorm2d,)), chosen)
    if "relu" in criterion.needs:
        _check_behind(criterion, "ReLU", "", _units(network, groups, RELUS), chosen)


def _check_behind(
    criterion: Criterion, what: str, why: str, units: frozenset[int], chosen: Sequence[ChannelGroup]
) -> None:
    """Refuse a group with a unit that is not among `units`."""
    for group in chosen:
        if not units.issuperset(group.units):
            raise CriterionError(
                f"criterion {criterion.name!r} needs a {what} behind every pruned group; group {group.name!r} has "
                f"none{why}; choose another criterion, such as 'l2'"
            )


def _units(network: Network, groups: ChannelGroups, kinds: tuple[type[nn.Module], ...]) -> frozenset[int]:
    """Return the units that pass through a layer of one of these kinds, restored batch norms left out."""
    found: set[int] = set()
    for name, layer in network.layers().items():
        channels = groups.layers[name].output
        if isinstance(layer, kinds) and channels is not None and not is_restored(name):
            found.update(channels.ids.tolist())
    return frozenset(found)


def _any_restored(network: Network) -> bool:
    """Tell whether a batch norm was put back where an exporter had folded it."""
    return any(is_restored(name) for name in network.layers())
