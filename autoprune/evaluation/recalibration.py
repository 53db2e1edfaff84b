"""Batch norm statistics of a pruned network, estimated anew on images of the fit split."""

import torch
from torch import Tensor, nn

from autoprune.errors import NumericalError


def recalibrate(module: nn.Module, inputs: Tensor, *, batch_size: int = 256) -> None:
    """Re-estimate the running statistics of every batch norm of `module`, in place.

    The one function of this package that changes its argument. Batches are of equal size (up to one image), because
    cumulative averaging, which PyTorch does with ``momentum=None``, weighs batches equally. The module is left in
    eval mode.

    Args:
        module: Any network; without batch norm nothing happens.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised.
        batch_size: Largest number of images at a time.

    Raises:
        NumericalError: A statistic is not finite.

    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    parts = -(-len(inputs) // batch_size)
    try:
        with torch.no_grad():
            for batch in torch.tensor_split(inputs, parts):
                module(batch.contiguous(memory_format=torch.channels_last))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d) and not (
            torch.isfinite(layer.running_mean).all() and torch.isfinite(layer.running_var).all()  # type: ignore[arg-type]
        ):
            raise NumericalError(
                f"batch norm {name!r}: recalibrated statistics are not finite; do the images hold NaN?"
            )
