"""Fine-tuning of a pruned network, with the unpruned one as teacher."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import DatasetError, ModelError, NumericalError, SearchError
from autoprune.evaluation.metrics import check_labels, predict
from autoprune.network.device import batch_on, default_device, ready
from autoprune.network.logits import final_softmax, without_softmax
from autoprune.recovery._hints import compared
from autoprune.recovery.augmentation import augmented
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.optimizer import optimizer_of, size_of

__all__ = [
    "AfterStep", "Epoch", "FinetuneResult", "FinetuneSettings", "Penalty", "Progress", "finetune", "shuffled",
    "training_loss",
]  # fmt: skip

Net = TypeVar("Net", bound=nn.Module)

#: Called with steps done, all steps and a text.
Progress = Callable[[int, int, str], None]

#: Makes of the network in training a scalar that is added to the loss of every step.
Penalty = Callable[[nn.Module], Tensor]

#: Called after every update with the network in training, which it may change, and the number of steps done.
AfterStep = Callable[[nn.Module, int], None]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the images did.

    Attributes:
        loss: Mean over its steps.
        learning_rate: Of its last step.
        seconds: Wall-clock time.

    """

    loss: float
    learning_rate: float
    seconds: float


class FinetuneResult(NamedTuple, Generic[Net]):
    """A fine-tuned network; unpacks into ``module, history``.

    Attributes:
        module: The trained copy, in eval mode, on the CPU, with the weights of the last step.
        history: One entry per epoch; none for those that lie before the first step.

    """

    module: Net
    history: tuple[Epoch, ...]


def finetune(
    module: Net,
    inputs: Tensor,
    labels: Tensor | None,
    settings: FinetuneSettings,
    *,
    teacher: nn.Module | None = None,
    penalty: Penalty | None = None,
    after_step: AfterStep | None = None,
    chosen: Tensor | None = None,
    first_step: int = 0,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> FinetuneResult[Net]:
    """Train a copy of `module` on the fit split.

    The final weights are returned: nothing is selected on any split. On a CPU the result depends on the arguments and
    the number of threads alone, bit for bit; the global random state is neither used nor changed. Images are shuffled
    anew in each epoch; those left over when the last batch is not full are left out of that epoch.

    Args:
        module: The pruned network; not changed. Where it, a canonical network, ends in a softmax, the losses are taken
            of the logits before, as they are of its teacher's.
        inputs: Images of the fit split, ``(n, C, H, W)``, normalised; at least 2.
        labels: Their classes, ``(n,)`` int64, or None to learn from the teacher alone.
        settings: How to train.
        teacher: The unpruned network, not changed; needed without labels. It sees the augmented images.
        penalty: Added to the loss of each step, for example a norm of some weights.
        after_step: Called after each update, for example to keep pruned weights at zero.
        chosen: Numbers of the images of an epoch, ``(m,)`` int64, each as often as it is seen; None for all once.
        first_step: Steps of the schedule that count as done: training goes on from there, at its learning rate.
        progress: Called after each step; what it raises stops the training.
        precision: Of both networks' passes, ``"fp32"`` or ``"bf16"`` (autocast); weights and updates stay float32.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Fewer than two images, labels that do not fit, or neither labels nor a teacher.
        ModelError: The network has no weights, or other classes than its teacher.
        SearchError: `first_step` is not one of the schedule's.
        NumericalError: The loss or a weight is not finite.

    """
    model = copy.deepcopy(module).cpu().eval()
    if settings.epochs == 0:
        return FinetuneResult(model, ())
    softmax = final_softmax(model)
    if softmax is not None:  # losses take logits
        end = model.get_submodule(softmax)
        model.set_submodule(softmax, nn.Identity())
        teacher = None if teacher is None else without_softmax(teacher)
    device = device or default_device()
    _check(model, inputs, labels, teacher, device)
    chosen = torch.arange(len(inputs)) if chosen is None else chosen
    _check_first_step(first_step, len(chosen), settings)
    model = model.to(device=device, memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]  # missing in torch's stubs
    teacher = None if teacher is None else ready(teacher, device)
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    taught = teacher if settings.hints > 0 else None
    with compared(model, taught, batch_on(inputs[:1], device)) as hint, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.seed)  # for layers that draw at random themselves
        trainer = _Trainer(
            model=model,
            teacher=teacher,
            hint=hint,
            optimizer=optimizer_of(((each, size_of(each)) for each in model.parameters()), settings),
            inputs=inputs.detach(),
            labels=labels,
            chosen=chosen,
            settings=settings,
            generator=torch.Generator().manual_seed(settings.seed),
            penalty=penalty,
            after_step=after_step,
            first_step=first_step,
            precision=precision,
            device=device,
        )
        begun = first_step // settings.steps_per_epoch(len(chosen))
        history = tuple(trainer.run_epoch(index, progress) for index in range(begun, settings.epochs))
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise _diverged("the trained weights are", settings)
    model.zero_grad(set_to_none=True)
    if softmax is not None:
        model.set_submodule(softmax, end)
    return FinetuneResult(model.to(device="cpu", memory_format=torch.contiguous_format).eval(), history)


@dataclass(frozen=True, slots=True)
class _Trainer:
    """All that one fine-tuning works with."""

    model: nn.Module
    teacher: nn.Module | None
    hint: Callable[[], Tensor] | None
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    labels: Tensor | None
    chosen: Tensor
    settings: FinetuneSettings
    generator: torch.Generator
    penalty: Penalty | None
    after_step: AfterStep | None
    first_step: int
    precision: str
    device: torch.device

    def run_epoch(self, index: int, progress: Progress | None) -> Epoch:
        """Train on every batch once."""
        started, settings = time.monotonic(), self.settings
        batches = shuffled(len(self.chosen), settings.batch_size, self.generator)
        _train_mode(self.model, freeze_batchnorm=settings.freeze_batchnorm)
        total_loss = learning_rate = 0.0
        skipped = max(0, self.first_step - index * len(batches))
        for step, chosen in enumerate(batches[skipped:], start=1):
            done = index * len(batches) + skipped + step
            learning_rate = settings.learning_rate_at(done - 1, len(batches))
            total_loss += self._step(self.chosen[chosen], learning_rate)
            if not math.isfinite(total_loss):
                raise _diverged(f"in epoch {index + 1}, step {skipped + step}, the loss is", settings)
            if self.after_step is not None:
                self.after_step(self.model, done)
            if progress is not None:
                text = f"epoch {index + 1} of {settings.epochs}, loss {total_loss / step:.3f}"
                progress(done, settings.epochs * len(batches), text)
        return Epoch(total_loss / (len(batches) - skipped), learning_rate, time.monotonic() - started)

    def _step(self, chosen: Tensor, learning_rate: float) -> float:
        """Take one step on the images `chosen`, ``(batch,)``; return the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        images = self.inputs[chosen]
        if self.settings.augment:
            images = augmented(images, self.generator, flip=self.settings.flip)
        images = batch_on(images, self.device)
        labels = None if self.labels is None else self.labels[chosen].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            with torch.no_grad():
                target = None if self.teacher is None else self.teacher(images)
            logits = self.model(images)
        loss = training_loss(logits.float(), labels, None if target is None else target.float(), self.settings)
        if self.hint is not None:
            loss = loss + self.settings.hints * self.hint()
        if self.penalty is not None:
            loss = loss + self.penalty(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


def _check(
    model: nn.Module, inputs: Tensor, labels: Tensor | None, teacher: nn.Module | None, device: torch.device
) -> None:
    """Refuse what cannot be trained; runs both networks on one image."""
    if labels is None and teacher is None:
        raise DatasetError("fine-tuning needs labels, or the unpruned network to learn from; found neither")
    if len(inputs) < 2:
        raise DatasetError(f"fine-tuning needs at least 2 images in the fit split, found {len(inputs)}")
    if next(model.parameters(), None) is None:
        raise ModelError("fine-tuning needs a network with weights, found none")
    output = predict(model, inputs[:1], device=device)
    if labels is not None:
        check_labels(labels, len(inputs), output.shape[-1])
    if teacher is not None:
        expected = predict(teacher, inputs[:1], device=device).shape
        if expected != output.shape:
            raise ModelError(
                f"expected an output like the unpruned network's, {tuple(expected[1:])} for one image, "
                f"found {tuple(output.shape[1:])}"
            )


def _check_first_step(first_step: int, images: int, settings: FinetuneSettings) -> None:
    """Refuse a step that the schedule does not have."""
    steps = settings.epochs * settings.steps_per_epoch(images)
    if not 0 <= first_step < steps:
        raise SearchError(f"expected a first step from 0 to {steps - 1}, found {first_step}")


def _train_mode(model: nn.Module, *, freeze_batchnorm: bool) -> None:
    """Put a network in training mode, its batch norms only where their statistics may change."""
    model.train()
    for layer in model.modules():
        if freeze_batchnorm and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the images in random order, in full batches; fewer than one batch make one."""
    order = torch.randperm(n, generator=generator)
    size = min(n, batch_size)
    return list(torch.split(order[: n // size * size], size))


def training_loss(logits: Tensor, labels: Tensor | None, target: Tensor | None, settings: FinetuneSettings) -> Tensor:
    """Return the mean loss of a batch: cross-entropy with the labels and divergence from the teacher, weighted."""
    weight = 0.0 if target is None else 1.0 if labels is None else settings.distillation
    loss = logits.new_zeros(())
    if labels is not None and weight < 1:
        loss = loss + (1 - weight) * F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    if target is not None and weight > 0:
        T = settings.temperature  # noqa: N806 - the paper's symbol
        student, teacher = (logits / T).log_softmax(1), (target / T).log_softmax(1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        loss = loss + weight * T**2 * divergence  # Hinton 2015, section 2: its gradients scale as 1 / T^2
    return loss


def _diverged(what: str, settings: FinetuneSettings) -> NumericalError:
    """Say what is not finite, and what to do."""
    return NumericalError(
        f"fine-tuning diverged: {what} not finite; use a learning rate below {settings.learning_rate:g} "
        "or some warm-up epochs, and check the images for NaN"
    )
