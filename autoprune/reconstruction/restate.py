"""Batch norms written in the statistics of what really enters them; the network computes the same."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

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
    sums: dict[str, Tensor] = {}
    handles = [norm.register_forward_pre_hook(_observer(name, sums)) for name, norm in norms.items()]
    try:
        with torch.no_grad():
            for batch in torch.split(images[:IMAGES], _BATCH):
                module(batch_on(batch, device))
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for name, norm in norms.items():
            _restate(norm, sums, name)


def _restate(norm: nn.BatchNorm2d, sums: Mapping[str, Tensor], name: str) -> None:
    """Write mean and variance into one batch norm, and what they changed into gamma and beta."""
    if not norm.affine or norm.running_mean is None or norm.running_var is None or name not in sums:
        return
    total, squares, count = sums[name]
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    varies = variance > norm.eps  # else its gamma would have to be huge
    mean = torch.where(varies, mean, norm.running_mean.double())
    variance = torch.where(varies, variance, norm.running_var.double())
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * gain
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(shift + gain * mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _observer(name: str, sums: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Make a hook that adds up sum, sum of squares and count per channel of what enters, ``(3, C)`` float64."""

    def observe(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].double()
        count = torch.full((x.shape[1],), x.numel() / x.shape[1], dtype=torch.float64, device=x.device)
        found = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        sums[name] = found if name not in sums else sums[name] + found

    return observe
