"""Masks over the single weights of a network: which stay, what is left of it, and how training keeps to them."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.errors import NumericalError, PlanError
from autoprune.network.network import Network
from autoprune.pruning.weight_masks import best_mask
from autoprune.training.rounds import kept_count
from autoprune.training.weight_scores import weights_of

#: Name of a convolution or linear layer -> which of its weights stay, bool of the shape of its weights.
Masks = Mapping[str, Tensor]

#: Whether weights compete with all others, or with those of their own layer, of which each keeps the same share.
Scope = Literal["global", "layer"]


def full_masks(network: Network) -> dict[str, Tensor]:
    """Return masks that keep every weight of `network`, save those that are zero already."""
    return {name: (weight != 0).cpu() for name, weight in weights_of(network).items()}


def kept_weights(masks: Masks) -> int:
    """Return how many weights masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def smaller_masks(
    masks: Masks, scores: Mapping[str, Tensor], share: float, scope: Scope = "global"
) -> dict[str, Tensor]:
    """Return masks that keep a share of all weights: those of highest score; of equal scores, the first.

    Args:
        masks: What was kept so far: weights that are gone never come back.
        scores: A score per weight, for each layer of `masks`.
        share: Of all weights of the layers, gone or not; with scope ``"layer"``, of those of each layer, and at least
            one. Where less than that was kept so far, all of it stays.
        scope: Who competes with whom.

    Raises:
        PlanError: Scores of other layers or shapes.
        NumericalError: A score is NaN.

    """
    check_scores(masks, scores)
    if scope == "layer":
        return {name: _smaller(mask, scores[name], share) for name, mask in masks.items()}
    flat = _smaller(
        torch.cat([mask.flatten() for mask in masks.values()]),
        torch.cat([scores[name].detach().cpu().flatten() for name in masks]),
        share,
    )
    parts = torch.split(flat, [mask.numel() for mask in masks.values()])
    return {name: part.view(mask.shape) for (name, mask), part in zip(masks.items(), parts, strict=True)}


def deviation_masks(network: Network, quality: float) -> dict[str, Tensor]:
    """Return masks that keep what is larger than `quality` standard deviations of its layer's weights.

    The threshold of each layer in Han et al. 2015 (1506.02626), section 3; weights that are zero already play no part.

    Raises:
        PlanError: A negative quality, or one above which a layer has no weight.

    """
    if quality < 0:
        raise PlanError(f"expected a number of standard deviations of at least 0, found {quality}")
    found = {}
    for name, weight in weights_of(network).items():
        left = weight[weight != 0].double()
        found[name] = (weight.abs() > quality * float(left.std(correction=0) if len(left) else 0.0)).cpu()
        if not found[name].any():
            raise PlanError(f"layer {name!r} has no weight above {quality:g} standard deviations; use a lower quality")
    return found


class MaskKeeper:
    """Keeps pruned weights at zero: called after each step of a training.

    Attributes:
        masks: Which weights stay; may be exchanged between two steps.

    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self._placed: tuple[Masks, dict[str, Tensor]] | None = None

    def __call__(self, module: nn.Module, step: int) -> None:
        """Set the pruned weights of `module` to zero."""
        with torch.no_grad():
            for name, pruned in self._pruned(module).items():
                module.get_submodule(name).get_parameter("weight").masked_fill_(pruned, 0.0)

    def _pruned(self, module: nn.Module) -> dict[str, Tensor]:
        """Return which weights are gone, where the module is; moved there once."""
        if self._placed is None or self._placed[0] is not self.masks:
            device = next(module.parameters()).device
            self._placed = self.masks, {name: ~mask.to(device) for name, mask in self.masks.items()}
        return self._placed[1]


def _smaller(mask: Tensor, scores: Tensor, share: float) -> Tensor:
    """Keep a share of the weights of one mask."""
    left = mask.flatten().nonzero().flatten()
    kept = min(kept_count(mask.numel(), share), len(left))
    if kept == 0:
        return mask
    smaller = torch.zeros(mask.numel(), dtype=torch.bool)
    smaller[left] = best_mask(scores.detach().cpu().flatten()[left], kept)
    return smaller.view(mask.shape)


def check_scores(masks: Masks, values: Mapping[str, Tensor]) -> None:
    """Make sure that there is a value, not NaN, for every weight of the masks.

    Raises:
        PlanError: Values of other layers or shapes.
        NumericalError: One is NaN.

    """
    for name, mask in masks.items():
        found = values.get(name)
        if found is None or found.shape != mask.shape:
            shape = "none" if found is None else f"shape {tuple(found.shape)}"
            raise PlanError(f"layer {name!r}: expected weights or scores of shape {tuple(mask.shape)}, found {shape}")
        if bool(found.isnan().any()):
            raise NumericalError(f"layer {name!r}: a weight or its score is NaN; use a smaller learning rate")
