"""What a policy proposed that the others did not."""

from collections.abc import Mapping, Sequence, Set
from statistics import fmean

from autoprune.service.comparisons.comparison_result import GroupDifference, ProposalsView

#: Units kept of every decision group.
Kept = tuple[int, ...]

#: Groups named of each policy.
MOST_GROUPS = 3


def proposals_view(
    policy: str,
    proposed: Mapping[str, Set[Kept]],
    delivered: Mapping[str, Mapping[str, int]],
    sizes: Mapping[str, int],
) -> ProposalsView:
    """Hold what one policy proposed, and what it ended with, against all others.

    Args:
        policy: Its name.
        proposed: The candidates within the budget of every policy.
        delivered: Units kept by the delivered network of every policy, by group.
        sizes: Units of every decision group.

    """
    own = proposed[policy]
    elsewhere = {kept for other, theirs in proposed.items() if other != policy for kept in theirs}
    others = [kept for other, kept in delivered.items() if other != policy]
    return ProposalsView(
        distinct=len(own),
        alone=len(own - elsewhere),
        groups=_differing(delivered[policy], others, sizes),
    )


def _differing(
    own: Mapping[str, int], others: Sequence[Mapping[str, int]], sizes: Mapping[str, int]
) -> list[GroupDifference]:
    """Return the groups whose kept share differs most from the mean of the others', the most differing first."""
    if not others:
        return []
    found = [
        GroupDifference(group=name, kept=own[name] / size, others=fmean(kept[name] / size for kept in others))
        for name, size in sizes.items()
    ]
    found.sort(key=lambda each: -abs(each.kept - each.others))  # stable: of equals the first in the network
    return [each for each in found[:MOST_GROUPS] if each.kept != each.others]
