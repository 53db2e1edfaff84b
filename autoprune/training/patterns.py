"""N:M sparsity: of every M weights in a row that are summed, the best N stay (Mishra et al. 2021, 2104.08378)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.errors import PlanError, SearchError
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network
from autoprune.training.masks import Masks, check_scores


@dataclass(frozen=True, slots=True)
class Pattern:
    """`kept` of every `block` weights of the same output and kernel position, whose inputs follow each other.

    So accelerators read them: 2:4 is that of NVIDIA's. It applies to layers whose number of inputs (of one group) is a
    multiple of `block`; others stay whole, as the first convolution mostly does, and depthwise ones always.
    """

    kept: int
    block: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            SearchError: Not at least 1 of more.

        """
        if not 1 <= self.kept < self.block:
            raise SearchError(f"a pattern N:M keeps at least 1 and fewer than M weights, found {self}")

    def __str__(self) -> str:
        return f"{self.kept}:{self.block}"

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read ``2:4``.

        Raises:
            SearchError: Not two whole numbers, or not a pattern.

        """
        kept, _, block = text.partition(":")
        if not (kept.isdecimal() and block.isdecimal()):
            raise SearchError(f"expected a pattern such as 2:4, found {text!r}")
        return cls(int(kept), int(block))

    def applies_to(self, layer: nn.Module) -> bool:
        """Tell whether the weights of a layer can be divided into blocks."""
        return isinstance(layer, PRODUCERS) and _inputs_last(layer, layer.weight).shape[-1] % self.block == 0


def pattern_masks(network: Network, masks: Masks, scores: Mapping[str, Tensor], pattern: Pattern) -> dict[str, Tensor]:
    """Return masks that keep the pattern in every layer that it applies to: of each block the weights of highest score.

    Args:
        network: Whose weights they are.
        masks: What was kept so far; a block of which fewer were kept keeps those.
        scores: A score per weight, for each layer of `masks`; of equal ones the first stays.
        pattern: How many of how many.

    Raises:
        PlanError: Scores of other layers or shapes, or no layer that the pattern applies to.
        NumericalError: A score is NaN.

    """
    check_scores(masks, scores)
    layers, found = network.layers(), dict(masks)
    chosen = [name for name in masks if pattern.applies_to(layers[name])]
    if not chosen:
        raise PlanError(f"pattern {pattern}: no layer has a multiple of {pattern.block} inputs")
    for name in chosen:
        layer, mask = layers[name], masks[name]
        ranked = _inputs_last(layer, scores[name].detach().cpu().masked_fill(~mask, -torch.inf))
        best = _blocks(ranked, pattern).sort(dim=-1, descending=True, stable=True).indices
        kept = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, best[..., : pattern.kept], True).flatten(-2)
        found[name] = _inputs_back(layer, kept, mask.shape) & mask
    return found


def holds(network: Network, masks: Masks, pattern: Pattern) -> dict[str, bool]:
    """Return for every layer of `masks` that the pattern applies to whether no block keeps more than it says."""
    layers = network.layers()
    return {
        name: int(_blocks(_inputs_last(layers[name], mask), pattern).sum(-1).max()) <= pattern.kept
        for name, mask in masks.items()
        if pattern.applies_to(layers[name])
    }


def _inputs_last(layer: nn.Module, values: Tensor) -> Tensor:
    """Return weight-shaped values with the inputs of one group as the last dimension."""
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        return values.view(layer.groups, -1, *values.shape[1:]).movedim(1, -1)
    return values.movedim(1, -1)  # (out, in / groups, ...)


def _blocks(values: Tensor, pattern: Pattern) -> Tensor:
    """Divide the last dimension into blocks, ``(..., blocks, block)``."""
    return values.reshape(*values.shape[:-1], -1, pattern.block)


def _inputs_back(layer: nn.Module, values: Tensor, shape: torch.Size) -> Tensor:
    """Undo :func:`_inputs_last`."""
    return values.movedim(-1, 1).reshape(shape)
