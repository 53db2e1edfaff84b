"""Batch norm statistics of a pruned network, estimated anew on images of the fit split."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.errors import DatasetError, NumericalError
from autoprune.network.device import batch_on, default_device, is_on

#: Images at a time.
BATCH_SIZE = 256

#: Of one image, a layer that sees one pixel of it has no variance.
FEWEST_IMAGES = 2


def recalibrate(
    module: nn.Module, inputs: Tensor, *, batch_size: int = BATCH_SIZE, device: torch.device | None = None
) -> None:
    """Re-estimate the running statistics of every ``nn.BatchNorm2d`` of `module`, in place; leave it in eval mode.

    The one function of this package that changes its argument: a candidate is built, recalibrated and then only read.
    Running statistics become the mean and the (unbiased) variance over all pixels of all images that reach the layer.
    PyTorch's own cumulative averaging (``momentum=None``) weighs a small last batch like a full one and loses the
    variance between batches; here batches are pooled exactly, each by its number of pixels. While statistics are
    taken, each batch is normalised by its own, so layers behind the first depend a little on the batch size.

    Args:
        module: Any network; without batch norm nothing is computed.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised; at least 2.
        batch_size: Images at a time (one more where a single image would be left); batches are of equal size, up to
            one image.
        device: Where to compute; :func:`autoprune.network.device.default_device` if None. The module stays where
            it is.

    Raises:
        DatasetError: Fewer than two images.
        NumericalError: A statistic is not finite; the module's statistics must then not be used.

    """
    module.eval()
    if not norms_of(module):
        return
    batches = fit_batches(inputs, batch_size)
    device = device or default_device()
    worker = module if is_on(module, device) else copy.deepcopy(module).to(device)
    with torch.no_grad():
        pass_batches(worker, norms_of(worker), (batch_on(batch, device) for batch in batches))
    for name, norm in norms_of(module).items():
        if worker is not module:
            norm.load_state_dict(worker.get_submodule(name).state_dict())


def fit_batches(inputs: Tensor, batch_size: int = BATCH_SIZE) -> tuple[Tensor, ...]:
    """Split images into the batches that batch norm is recalibrated on; see :func:`recalibrate`.

    Raises:
        DatasetError: Fewer than two images.

    """
    if len(inputs) < FEWEST_IMAGES:
        raise DatasetError(
            f"batch norm recalibration needs at least {FEWEST_IMAGES} images of the fit split, found {len(inputs)}"
        )
    return torch.tensor_split(inputs, min(-(-len(inputs) // batch_size), len(inputs) // 2))


def pass_batches(
    forward: Callable[[Tensor], Tensor], norms: Mapping[str, nn.BatchNorm2d], batches: Iterable[Tensor]
) -> tuple[Tensor, ...]:
    """Run a network, or a part of one, on batches, each normalised by its own statistics; return the outputs.

    Changes `norms`, the batch norms in `forward` by name: they get the statistics of all batches together. To be
    called without gradients, everything on one device.

    Raises:
        NumericalError: A statistic is not finite; no norm must then be used.

    """
    with _measuring(norms) as moments:
        outputs = tuple(forward(batch) for batch in batches)
    for name, norm in norms.items():
        if moments[name].count:
            _write(name, norm, moments[name], len(outputs))
    return outputs


def norms_of(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Return every batch norm that has running statistics, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None
    }


class _Moments:
    """Mean and variance per channel, pooled over batches in float64 (Chan, Golub & LeVeque 1979, eq. 2.1)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    @property
    def variance(self) -> Tensor:
        """Unbiased, ``(channels,)``."""
        return self._squares / (self.count - 1)

    def add(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Pool with a batch of `count` pixels, its mean and unbiased variance, ``(channels,)``."""
        mean, variance = mean.double().cpu(), variance.double().cpu()
        total = self.count + count
        delta = mean - self.mean
        self._squares = self._squares + variance * (count - 1) + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


@contextmanager
def _measuring(norms: Mapping[str, nn.BatchNorm2d]) -> Iterator[dict[str, _Moments]]:
    """Make batch norms report the statistics of all they see; momentum and eval mode come back at the end."""
    moments = {name: _Moments() for name in norms}
    with ExitStack() as undo:
        for name, norm in norms.items():
            undo.callback(norm.eval)
            undo.callback(setattr, norm, "momentum", norm.momentum)
            norm.reset_running_stats()
            norm.momentum = 1.0  # the running statistics are those of the last batch
            norm.train()
            hook = norm.register_forward_hook(partial(_observe, moments[name]))
            undo.callback(hook.remove)
        yield moments


def _observe(moments: _Moments, norm: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
    """Forward hook: add the statistics of the batch that `norm` has just normalised."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    moments.add(norm.running_mean, norm.running_var, args[0].numel() // args[0].shape[1])


def _write(name: str, norm: nn.BatchNorm2d, moments: _Moments, batches: int) -> None:
    """Give `norm` its new statistics."""
    if not bool(torch.isfinite(moments.mean).all() and torch.isfinite(moments.variance).all()):
        raise NumericalError(
            f"batch norm {name!r}: the recalibrated statistics are not finite; "
            "check the images and the network's weights for NaN and infinity"
        )
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.variance)
    norm.num_batches_tracked.fill_(batches)
