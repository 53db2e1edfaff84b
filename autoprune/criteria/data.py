"""What a criterion may see besides the network: a few images of the fit split, their labels, and a seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoprune.datasets.splits import Split
from autoprune.errors import DatasetError

#: Images that a criterion is measured on, and images of one minibatch.
IMAGES, BATCH_SIZE = 256, 32


@dataclass(frozen=True, slots=True, eq=False)
class CriterionData:
    """Images for a criterion; everything it computes is a pure function of these and the network.

    Attributes:
        images: ``(n, C, H, W)``, normalised; None where there are none.
        labels: ``(n,)`` int64; None where there are none.
        seed: Of criteria that draw.
        batch_size: Images of a minibatch.

    """

    images: Tensor | None = None
    labels: Tensor | None = None
    seed: int = 0
    batch_size: int = BATCH_SIZE


#: Enough for criteria that look at weights alone.
NO_DATA = CriterionData()


def criterion_data(fit: Split, *, images: int = IMAGES, seed: int = 0) -> CriterionData:
    """Draw at most `images` images of the fit split, the same for the same seed.

    Raises:
        DatasetError: Another split, which must not decide what is pruned, or a number below 1.

    """
    if fit.name != "fit":
        raise DatasetError(f"criteria are measured on images of the fit split, found the {fit.name} split")
    if images < 1:
        raise DatasetError(f"criteria are measured on at least 1 image, found {images}")
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(fit))[:images])
    return CriterionData(fit.inputs[chosen], None if fit.labels is None else fit.labels[chosen], seed)
