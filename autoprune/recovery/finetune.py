"""Fine-tuning of a pruned network, with the unpruned one as teacher."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import NumericalError, SearchError

Net = TypeVar("Net", bound=nn.Module)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How to fine-tune.

    Attributes:
        epochs: Passes over the images; 0 returns a copy.
        optimizer: ``"sgd"`` (Nesterov) or ``"adamw"``.
        learning_rate: At the start; falls to 0 along a half cosine (Loshchilov & Hutter 2017, 1608.03983).
        momentum: Of SGD.
        weight_decay: On weights; not on biases and batch norm.
        batch_size: Images per step.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al. 2016).
        distillation: Weight, 0 to 1, of the teacher's distribution in the loss; 1 where there are no labels.
        temperature: Of both distributions in the distillation (Hinton et al. 2015, 1503.02531).
        augment: Random crops after padding by 1/8 of the size; for images of at least 16 pixels.
        flip: Random horizontal flips as well.
        seed: Of shuffling and augmentation.

    """

    epochs: int = 3
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    label_smoothing: float = 0.0
    distillation: float = 0.5
    temperature: float = 4.0
    augment: bool = True
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 0,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "batch_size": self.batch_size >= 2,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "distillation": 0 <= self.distillation <= 1,
            "temperature": 0 < self.temperature < math.inf,
        }
        for name, holds in checks.items():
            if not holds:
                raise SearchError(f"fine-tuning: {name} is out of range, found {getattr(self, name)}")
        if self.optimizer not in ("sgd", "adamw"):
            raise SearchError(f"fine-tuning: optimizer must be 'sgd' or 'adamw', found {self.optimizer!r}")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass: mean loss, learning rate at its end, seconds."""

    loss: float
    learning_rate: float
    seconds: float


def finetune(
    module: Net,
    inputs: Tensor,
    labels: Tensor | None,
    settings: FinetuneSettings,
    *,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> tuple[Net, tuple[Epoch, ...]]:
    """Return a trained copy of `module` (on the CPU, eval mode) and what each epoch did.

    The final weights are returned, not the best of any split. Deterministic from the seed on a CPU with the same
    number of threads.

    Args:
        module: The pruned network; not changed.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised.
        labels: Their classes, ``(n,)``, or None to learn from the teacher alone.
        settings: How.
        teacher: The unpruned network; needed without labels.
        progress: Called with steps done, all steps, and a text; may raise to stop.
        device: Where to train; CUDA where present by default.

    Raises:
        NumericalError: The loss is not finite.
        SearchError: Neither labels nor a teacher.

    """
    if labels is None and teacher is None:
        raise SearchError("fine-tuning needs labels, or the unpruned network to learn from")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = copy.deepcopy(module).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    guide = None if teacher is None else copy.deepcopy(teacher).to(device).eval()
    optimizer = _optimizer(model, settings)
    steps = max(1, len(inputs) // settings.batch_size)
    total = steps * settings.epochs
    generator = torch.Generator().manual_seed(settings.seed)
    epochs = []
    for epoch in range(settings.epochs):
        started, losses, rate = time.monotonic(), 0.0, 0.0
        model.train()
        for step, chosen in enumerate(_batches(len(inputs), settings.batch_size, generator)):
            done = epoch * steps + step
            rate = settings.learning_rate * (1 + math.cos(math.pi * done / total)) / 2
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            images = _augmented(inputs[chosen], settings, generator)
            images = images.to(device).contiguous(memory_format=torch.channels_last)
            loss = _loss(model, guide, images, None if labels is None else labels[chosen].to(device), settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += float(loss.detach())
            if not math.isfinite(losses):
                raise NumericalError(
                    f"fine-tuning diverged in epoch {epoch + 1}, step {step + 1}: the loss is not finite; "
                    f"use a learning rate below {settings.learning_rate:g}"
                )
            if progress is not None:
                progress(done + 1, total, f"epoch {epoch + 1} of {settings.epochs}, loss {losses / (step + 1):.3f}")
        epochs.append(Epoch(losses / steps, rate, time.monotonic() - started))
    return model.cpu().eval(), tuple(epochs)


def _optimizer(model: nn.Module, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """Weight decay on weights only."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0
    )


def _batches(n: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffle and cut into full batches; fewer images than one batch make one."""
    order = torch.randperm(n, generator=generator)
    return [order[i : i + size] for i in range(0, max(1, n - size + 1), size)]


def _augmented(images: Tensor, settings: FinetuneSettings, generator: torch.Generator) -> Tensor:
    """Crop at random after zero padding, and flip; ``(n, C, H, W)`` in and out. Small images stay as they are."""
    n, _, height, width = images.shape
    if not settings.augment or min(height, width) < 16:
        return images
    pad = max(height, width) // 8
    padded = F.pad(images, (pad, pad, pad, pad))
    tops = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
    lefts = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
    rows = tops[:, None] + torch.arange(height)
    columns = lefts[:, None] + torch.arange(width)
    if settings.flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = torch.arange(n)[:, None, None]
    cropped: Tensor = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def _loss(
    model: nn.Module, guide: nn.Module | None, images: Tensor, labels: Tensor | None, settings: FinetuneSettings
) -> Tensor:
    """Cross-entropy with the labels and divergence from the teacher, weighted."""
    logits = model(images)
    weight = 0.0 if guide is None else (1.0 if labels is None else settings.distillation)
    loss = logits.new_zeros(())
    if labels is not None and weight < 1:
        loss = (1 - weight) * F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    if guide is not None and weight > 0:
        with torch.no_grad():
            target = guide(images) / settings.temperature
        divergence = F.kl_div(
            (logits / settings.temperature).log_softmax(1),
            target.log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        loss = loss + weight * settings.temperature**2 * divergence  # Hinton 2015, section 2: gradients scale as 1/T^2
    return loss
