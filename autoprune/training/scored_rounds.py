"""Single weights pruned in rounds of scoring alone, nothing trained in between: pruning at initialisation.

SynFlow takes 100 exponential rounds (Tanaka et al. 2020, 2006.05467), SNIP and GraSP one.
"""

from collections.abc import Sequence

from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.recovery.finetune import Progress
from autoprune.training.layer_collapse import check_collapse, check_compression
from autoprune.training.masks import Masks, Scope, full_masks, kept_weights, smaller_masks
from autoprune.training.rounds import check_shares
from autoprune.training.weight_scores import WeightScore


def prune_by_scores(
    network: Network,
    shares: Sequence[float],
    score: WeightScore,
    *,
    scope: Scope = "global",
    progress: Progress | None = None,
) -> Masks:
    """Return masks over the weights of `network`, made smaller round by round, each by the scores of what is left.

    To train what they keep, give `masked(network, masks)` to fine-tuning with a
    :class:`autoprune.training.masks.MaskKeeper` of them.

    Args:
        network: Trained or not; not changed. Its weights that are zero count as gone.
        shares: Share of the weights kept after each round, falling (:mod:`autoprune.training.rounds`).
        score: Ranks weights at each round; those of the lowest scores go.
        scope: Whether weights compete with all others or with those of their layer.
        progress: Called after each round; what it raises ends the run.

    Raises:
        SearchError: Shares that rise.
        PlanError: A layer would collapse, or scores that do not fit the network.
        NumericalError: A score is not finite, or those of a layer are all 0.

    """
    check_shares(shares)
    if scope == "global":
        check_compression(network, shares[-1])
    masks: Masks = full_masks(network)
    for number, share in enumerate(shares, start=1):
        masks = smaller_masks(masks, score(masked(network, masks)), share, scope)
        check_collapse(network, masks)
        if progress is not None:
            progress(number, len(shares), f"round {number} of {len(shares)}, {kept_weights(masks):,} weights left")
    return masks
