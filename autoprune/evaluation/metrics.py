"""How good a network is on a set of images, with labels or against the unpruned network."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import DatasetError, ModelError, NumericalError, SearchError
from autoprune.network.device import batch_on, default_device, ready

#: Images at a time.
BATCH_SIZE = 250


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality on one set of images; None where it cannot be told.

    Attributes:
        top1: Share of images whose label has the highest score.
        top5: Share of images whose label is among the five highest; None with fewer than six classes, where it
            would always be 1.
        loss: Mean cross-entropy, in nats.
        agreement: Share of images on which the class is the unpruned network's.
        kl: Mean Kullback-Leibler divergence from the unpruned network's distribution to this one's, in nats.
        images: Number of images.

    """

    top1: float | None
    top5: float | None
    loss: float | None
    agreement: float | None
    kl: float | None
    images: int

    @property
    def objective(self) -> float:
        """What a search maximises: top-1 where there are labels, else agreement with the unpruned network."""
        value = self.top1 if self.top1 is not None else self.agreement
        assert value is not None, "scores hold labels or a reference"
        return value

    @property
    def regret(self) -> float:
        """What breaks ties, lower is better: the loss where there are labels, else the divergence."""
        value = self.loss if self.loss is not None else self.kl
        assert value is not None, "scores hold labels or a reference"
        return value

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON-ready data; every float survives JSON exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Scores":
        """Read scores back from :meth:`to_dict`.

        Raises:
            SearchError: Not the record of scores: other keys.

        """
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise SearchError(f"recorded scores: expected the keys {sorted(names)}, found {sorted(data)}")
        return cls(**data)


def predict(
    module: nn.Module,
    inputs: Tensor,
    *,
    batch_size: int = BATCH_SIZE,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> Tensor:
    """Return the network's outputs for `inputs`, float32 ``(n, classes)`` on the CPU.

    Args:
        module: Any network; runs in eval mode and is not changed.
        inputs: Images, ``(n, C, H, W)``, normalised.
        batch_size: Images at a time.
        precision: ``"fp32"`` or ``"bf16"`` (autocast).
        device: Where to compute; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: No images.
        NumericalError: An output is not finite.

    """
    device = device or default_device()
    runner = ready(module, device)
    return outputs(lambda _, batch: runner(batch), inputs, batch_size=batch_size, precision=precision, device=device)


def outputs(
    forward: Callable[[int, Tensor], Tensor],
    inputs: Tensor,
    *,
    batch_size: int = BATCH_SIZE,
    precision: str = "fp32",
    device: torch.device,
) -> Tensor:
    """Return what `forward` makes of the number and the images of each batch; see :func:`predict`.

    Raises:
        DatasetError: No images.
        NumericalError: An output is not finite.

    """
    if len(inputs) == 0:
        raise DatasetError("expected at least one image to run the network on, found none")
    batches = enumerate(torch.split(inputs, batch_size))
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        parts = [forward(number, batch_on(batch, device)).float().cpu() for number, batch in batches]
    logits = torch.cat(parts)  # outside inference mode, so an ordinary tensor
    if not bool(torch.isfinite(logits).all()):
        raise NumericalError(
            "the network's outputs are not finite; check its weights, and the images and their normalisation"
        )
    return logits


def score(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor | None,
    *,
    reference_logits: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> Scores:
    """Score `module` on images with their labels, against the unpruned network's outputs, or both.

    All means are taken in float64 over all images at once: neither the order nor the size of batches shows, except
    through the last bits of float32 outputs, which convolutions may round differently for other batch sizes.

    Args:
        module: A classifier, images to ``(n, classes)``; runs in eval mode and is not changed.
        inputs: Images, ``(n, C, H, W)``, normalised.
        labels: Their classes, ``(n,)`` int64, or None.
        reference_logits: The unpruned network's outputs for the same images, ``(n, classes)``, or None.
        batch_size: Images at a time.
        precision: ``"fp32"`` or ``"bf16"`` (autocast).
        device: Where to compute; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Neither labels nor reference, or labels that do not fit images and classes.
        ModelError: The network is no classifier, or has other classes than the reference.
        NumericalError: An output is not finite.

    """
    logits = predict(module, inputs, batch_size=batch_size, precision=precision, device=device)
    return score_logits(logits, labels, reference_logits=reference_logits)


def score_logits(logits: Tensor, labels: Tensor | None, *, reference_logits: Tensor | None = None) -> Scores:
    """Score outputs that are already there, ``(n, classes)``; see :func:`score`.

    Raises:
        DatasetError: Neither labels nor reference, or labels that do not fit images and classes.
        ModelError: Not the outputs of a classifier, or other classes than the reference.

    """
    if labels is None and reference_logits is None:
        raise DatasetError("scoring needs labels or the outputs of the unpruned network, found neither")
    logits = logits.double()
    if logits.dim() != 2:
        raise ModelError(f"expected a classifier with output (n, classes), found shape {tuple(logits.shape)}")
    top1 = top5 = loss = agreement = kl = None
    if labels is not None:
        top1, top5, loss = _against_labels(logits, labels.cpu())
    if reference_logits is not None:
        agreement, kl = _against_reference(logits, reference_logits.detach().cpu().double())
    return Scores(top1, top5, loss, agreement, kl, len(logits))


def check_labels(labels: Tensor, images: int, classes: int) -> None:
    """Hold `labels` against the number of images and classes.

    Raises:
        DatasetError: Not one label in ``[0, classes)`` per image.

    """
    if tuple(labels.shape) != (images,):
        raise DatasetError(f"expected one label per image, shape ({images},), found {tuple(labels.shape)}")
    if images and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DatasetError(
            f"expected labels from 0 to {classes - 1}, one per output of the network, "
            f"found {int(labels.min())} to {int(labels.max())}"
        )


def _against_labels(logits: Tensor, labels: Tensor) -> tuple[float, float | None, float]:
    """Return top-1, top-5 and cross-entropy; of classes with equal scores the first counts as higher."""
    n, classes = logits.shape
    check_labels(labels, n, classes)
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(classes) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    top5 = float((rank < 5).double().mean()) if classes > 5 else None
    return float((rank == 0).double().mean()), top5, float(F.cross_entropy(logits, labels))


def _against_reference(logits: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return agreement and divergence; rounding below 0 is cut off."""
    if reference.shape != logits.shape:
        raise ModelError(
            f"expected reference outputs of shape {tuple(logits.shape)}, found {tuple(reference.shape)}; "
            "both networks must have seen the same images and have the same classes"
        )
    agreement = float((logits.argmax(1) == reference.argmax(1)).double().mean())
    divergence = F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="batchmean", log_target=True)
    return agreement, max(0.0, float(divergence))
