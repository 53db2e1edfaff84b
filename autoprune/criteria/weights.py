"""Scores of single weights, by the criteria that can tell them apart, and one ranking over all layers."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from autoprune.criteria import data_free, gradients
from autoprune.criteria.applicability import check_applicable
from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.members import WeightValues
from autoprune.criteria.synflow import synaptic_flow
from autoprune.errors import CriterionError, NumericalError
from autoprune.groups.channel_group import find_groups
from autoprune.network.masked import masked
from autoprune.network.network import Network

Formula = Callable[[Network, CriterionData], dict[str, Tensor]]


def score_weights(
    network: Network,
    criterion: str,
    data: CriterionData = NO_DATA,
    *,
    masks: Mapping[str, Tensor] | None = None,
    chosen: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Return the importance of every weight of every convolution and linear layer; deterministic.

    Args:
        network: The network; not changed.
        criterion: A name of :data:`autoprune.criteria.catalog.CRITERIA` that scores weights.
        data: Images of the fit split and a seed, for criteria that need them.
        masks: Which weights are still there, by layer, bool of the weight's shape: the network is scored with all
            others at 0, as in a schedule of several rounds. Layers not named are whole.
        chosen: The layers whose scores will be used, and are checked; None for all.

    Returns:
        Scores by layer, in execution order, each of the weight's shape, float64 on the CPU; higher ones stay.

    Raises:
        UnknownNameError: No such criterion for weights.
        CriterionError: The criterion cannot score this network, or not with this data.
        PlanError: A mask fits no layer.
        NumericalError: A score is not finite, or all scores of a layer are 0; names the layer.

    """
    entry = find_criterion(criterion, "weight")
    check_applicable(entry, network, find_groups(network), (), data=data)
    scores = FORMULAS[criterion](masked(network, masks) if masks else network, data)
    for name, values in scores.items():
        if chosen is None or name in chosen:
            _check(criterion, name, values)
    return scores


def global_kept(scores: WeightValues, share: float) -> dict[str, int]:
    """Return how many weights each layer keeps when the best `share` of all are kept, in one ranking.

    Together they are exactly the nearest whole number. The best weight of every layer always stays, so that no layer
    is cut off; of equals the first stays.

    Raises:
        CriterionError: A share that is not above 0 and at most 1, or too small for one weight per layer.

    """
    if not 0 < share <= 1:
        raise CriterionError(f"the share of weights to keep must be above 0 and at most 1, found {share}")
    sizes = [values.numel() for values in scores.values()]
    total = round(share * sum(sizes))
    if total < len(sizes):
        raise CriterionError(
            f"keeping {share:.3%} of {sum(sizes):,} weights leaves {total}, less than one for each of {len(sizes)} "
            f"layers; keep at least {len(sizes) / sum(sizes):.3%}"
        )
    ranks = []
    for values in scores.values():
        flat = values.flatten().clone()
        flat[flat.argmax()] = torch.inf
        ranks.append(flat)
    order = torch.sort(torch.cat(ranks), descending=True, stable=True).indices[:total]
    layers = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    counts = torch.bincount(layers[order], minlength=len(sizes))
    return dict(zip(scores, counts.tolist(), strict=True))


def _check(criterion: str, layer: str, scores: Tensor) -> None:
    """Refuse scores of one layer that say nothing."""
    if not bool(torch.isfinite(scores).all()):
        raise NumericalError(
            f"criterion {criterion!r}: a score of layer {layer!r} is not finite; check the network's weights and the "
            "images for NaN and very large values, or choose criterion 'l1'"
        )
    if not bool(scores.any()):
        raise NumericalError(
            f"criterion {criterion!r}: all scores of layer {layer!r} are 0, so that its weights cannot be told apart: "
            "nothing passes through it, or it makes no difference to the output; keep more of its weights, or choose "
            "criterion 'l1'"
        )


#: How each criterion scores weights.
FORMULAS: Mapping[str, Formula] = {
    "l1": data_free.magnitudes,
    "lamp": data_free.weight_shares,
    "random": data_free.random_weights,
    "gradient": gradients.gradient_magnitudes,
    "taylor": gradients.taylor,
    "fisher": gradients.fisher,
    "snip": gradients.snip,
    "grasp": gradients.grasp,
    "synflow": synaptic_flow,
}
