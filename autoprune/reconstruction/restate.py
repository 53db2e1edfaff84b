"""Batch norms written in the statistics of what really enters them; the network computes the same."""

import torch
from torch import Tensor, nn

from autoprune.network.batchnorm import entering_moments
from autoprune.network.device import batch_on

#: Images that statistics are taken from, and images at a time.
IMAGES, _BATCH = 2048, 256


def restate_batchnorm(module: nn.Module, images: Tensor, device: torch.device) -> None:
    """Give every batch norm of `module` the statistics of `images`, in place, without changing what it computes.

    A refit keeps the unpruned network's statistics. Whoever trains the network then normalises each batch by its own
    statistics, which makes it another network from the first step on, and whoever recalibrates it loses what was
    fitted. So the running statistics become those of what enters, and gamma and beta take up the difference. Channels
    that never vary stay.

    Args:
        module: In eval mode, on `device`.
        images: Of the fit split, ``(n, C, H, W)``, normalised; the first 2,048 are used.
        device: Where to compute.

    """
    norms = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    batches = (batch_on(batch, device) for batch in torch.split(images[:IMAGES], _BATCH))
    moments = entering_moments(module, list(norms), batches)
    with torch.no_grad():
        for name, (mean, variance) in moments.items():
            _restate(norms[name], mean, variance)


def _restate(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Write mean and variance into one batch norm, and what they changed into gamma and beta."""
    if not norm.affine or norm.running_mean is None or norm.running_var is None:
        return
    varies = variance > norm.eps  # else its gamma would have to be huge
    mean = torch.where(varies, mean, norm.running_mean.double())
    variance = torch.where(varies, variance, norm.running_var.double())
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * gain
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(shift + gain * mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
