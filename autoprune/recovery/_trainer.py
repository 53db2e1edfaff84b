"""The steps of a fine-tuning, one after the other, from wherever it stands."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import Cancelled, NumericalError
from autoprune.network.device import batch_on
from autoprune.recovery.augmentation import augmented
from autoprune.recovery.checkpoint import Checkpoint
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.optimizer import optimizer_tensors, restore_optimizer
from autoprune.recovery.position import Epoch, Position

#: Called with steps done, all steps and a text.
Progress = Callable[[int, int, str], None]

#: Makes of the network in training a scalar that is added to the loss of every step.
Penalty = Callable[[nn.Module], Tensor]

#: Called after every update with the network in training, which it may change, and the number of steps done.
AfterStep = Callable[[nn.Module, int], None]


@dataclass(slots=True)
class Trainer:
    """All that one fine-tuning works with, and how far it is.

    Torch's global random state is a part of it: the caller sets it, and has it back afterwards.
    """

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
    checkpoint: Checkpoint | None = None
    key: str = ""
    position: Position = field(default_factory=Position, init=False)
    _drawn_from: Tensor | None = field(default=None, init=False)  # generator's state before it drew the epoch's order

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        return self.settings.steps_per_epoch(len(self.chosen))

    def run(self, progress: Progress | None) -> tuple[Epoch, ...]:
        """Train to the end, from the checkpoint where there is one; return all epochs since the first step."""
        found = None if self.checkpoint is None else self.checkpoint.read(self.key)
        if found is None:
            self.position = Position(self.first_step)
        else:
            self.position, tensors = found
            self._restore(tensors)
        while self.position.step < self.settings.epochs * self.steps:
            self._run_epoch(progress)
        return self.position.history

    def _run_epoch(self, progress: Progress | None) -> None:
        """Train on every batch that is left of the present epoch."""
        settings, steps = self.settings, self.steps
        started = time.monotonic() - self.position.seconds
        _train_mode(self.model, freeze_batchnorm=settings.freeze_batchnorm)
        for chosen in self._batches()[self.position.step % steps :]:
            rate = settings.learning_rate_at(self.position.step, steps)
            loss = self._step(self.chosen[chosen], rate)
            self._advance(loss, rate, started)
            if self.after_step is not None:
                self.after_step(self.model, self.position.step)
            self._save_where_due()
            self._report(progress)

    def _batches(self) -> list[Tensor]:
        """Return the images of each step of the present epoch; drawn again where it has begun."""
        now = self.generator.get_state()
        again = self._drawn_from is not None
        if self._drawn_from is None:
            self._drawn_from = now
        self.generator.set_state(self._drawn_from)
        batches = shuffled(len(self.chosen), self.settings.batch_size, self.generator)
        if again:
            self.generator.set_state(now)
        return batches

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

    def _advance(self, loss: float, learning_rate: float, started: float) -> None:
        """Note a step, its loss and, where it is the last one of its epoch, the epoch, `started` at that time."""
        before, steps = self.position, self.steps
        step, running, seconds = before.step + 1, before.running + loss, time.monotonic() - started
        if not math.isfinite(running):
            epoch, within = divmod(before.step, steps)
            raise diverged(f"in epoch {epoch + 1}, step {within + 1}, the loss is", self.settings)
        if step % steps:
            self.position = Position(step, before.history, running, seconds)
            return
        complete = Epoch(running / self._taken(step), learning_rate, seconds)
        self.position = Position(step, (*before.history, complete))
        self._drawn_from = None

    def _taken(self, step: int) -> int:
        """Return how many steps of its epoch were taken when `step` is done: those before the first one were not."""
        begin = (step - 1) // self.steps * self.steps
        return step - max(begin, self.first_step)

    def _report(self, progress: Progress | None) -> None:
        """Tell how far it is; where that ends the training, write down where it stands first."""
        if progress is None:
            return
        at, steps, epochs = self.position, self.steps, self.settings.epochs
        loss = at.running / self._taken(at.step) if at.step % steps else at.history[-1].loss
        try:
            progress(at.step, epochs * steps, f"epoch {-(-at.step // steps)} of {epochs}, loss {loss:.3f}")
        except Cancelled:
            self._save()
            raise

    def _save_where_due(self) -> None:
        """Write down where the training stands: at its end, at the end of an epoch, or after a while."""
        if self.checkpoint is None:
            return
        is_end = self.position.step == self.settings.epochs * self.steps
        if is_end or self.checkpoint.is_due(epoch_ends=self.position.step % self.steps == 0):
            self._save()

    def _save(self) -> None:
        """Write down where the training stands; at its end that takes the network alone."""
        if self.checkpoint is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in _tensors(self.model).items()}
        if self.position.step < self.settings.epochs * self.steps:
            tensors |= optimizer_tensors(self.optimizer)
            tensors |= {"random.cpu": torch.get_rng_state(), "random.images": self.generator.get_state()}
            if self._drawn_from is not None:
                tensors["random.order"] = self._drawn_from
            if self.device.type == "cuda":
                tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        self.checkpoint.write(self.key, self.position, tensors)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`_save` wrote."""
        with torch.no_grad():
            for name, tensor in _tensors(self.model).items():
                tensor.copy_(tensors[f"model.{name}"])
        if self.position.step == self.settings.epochs * self.steps:
            return
        restore_optimizer(self.optimizer, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        self.generator.set_state(tensors["random.images"])
        self._drawn_from = tensors.get("random.order")
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once, those that ``state_dict`` leaves out included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


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


def diverged(what: str, settings: FinetuneSettings) -> NumericalError:
    """Say what is not finite, and what to do."""
    return NumericalError(
        f"fine-tuning diverged: {what} not finite; use a learning rate below {settings.learning_rate:g} "
        "or some warm-up epochs, and check the images for NaN"
    )
