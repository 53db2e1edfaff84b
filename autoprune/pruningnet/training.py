"""Training of a PruningNet: other widths at every step (Liu et al. 2019, 1903.10258, section 3.1)."""

import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoprune.datasets.splits import Split
from autoprune.errors import Cancelled, DatasetError, NumericalError, SearchError
from autoprune.evaluation.metrics import check_labels
from autoprune.network.device import batch_on, default_device, ready
from autoprune.network.layers import PRODUCERS
from autoprune.network.logits import without_softmax
from autoprune.network.memory import memory_bytes
from autoprune.problem import PruningProblem
from autoprune.pruningnet._checkpoint import Position, read, write
from autoprune.pruningnet.pruningnet import PruningNet
from autoprune.pruningnet.settings import PruningNetSettings
from autoprune.pruningnet.widths import random_plan
from autoprune.recovery.augmentation import augmented
from autoprune.recovery.finetune import Progress, shuffled, training_loss
from autoprune.recovery.optimizer import optimizer_of

#: Raised whenever the same settings would give other weights: older checkpoints are then not used.
VERSION = 2

#: How often a training writes down where it stands, besides at the end.
CHECKPOINT_S = 60.0

#: What random numbers are for; each is drawn from seed, purpose and step alone, so there is no state to keep.
_ORDER, _AUGMENTATION, _WIDTHS = range(3)


class TrainedPruningNet(NamedTuple):
    """A trained PruningNet, on the CPU, and the mean loss of every epoch; unpacks."""

    net: PruningNet
    losses: tuple[float, ...]


def train_pruningnet(
    problem: PruningProblem,
    fit: Split,
    settings: PruningNetSettings,
    *,
    images: int | None = None,
    precision: str = "fp32",
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> TrainedPruningNet:
    """Train a PruningNet for `problem` on the fit split.

    On a CPU the result depends on the arguments (but not those about checkpoints) and the number of threads alone, bit
    for bit, whether the training ran through or was killed and went on from its checkpoint. The global random state is
    neither used nor changed. Images left over when the last batch is not full are left out of an epoch.

    Args:
        problem: What is pruned; its limits play no part.
        fit: The fit split.
        settings: How to train.
        images: Train on the first so many images; None for all.
        precision: ``"fp32"`` or ``"bf16"`` (autocast) of the networks; predictions are always float32.
        checkpoint: File to go on from, where it is of this very training, and to write to; None for none.
        checkpoint_s: Seconds between two checkpoints.
        progress: Called after each step; a :class:`Cancelled` from it ends the training with a checkpoint.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Fewer than two images, or labels that do not fit.
        NumericalError: The loss or a weight is not finite.
        Cancelled: `progress` raised it.

    """
    device = device or default_device()
    inputs = fit.inputs[:images]
    labels = None if fit.labels is None else fit.labels[:images]
    if len(inputs) < 2:
        raise DatasetError(f"a PruningNet needs at least 2 images of the fit split, found {len(inputs)}")
    if labels is not None:
        check_labels(labels, len(inputs), problem.network.output_shape[-1])
    training = settings.training
    net = PruningNet(problem, scratch=settings.scratch, hidden=settings.hidden, seed=training.seed).to(device)
    taught = labels is None or training.distillation > 0
    trainer = _Trainer(
        net=net,
        teacher=ready(problem.network.module, device) if taught else None,
        optimizer=optimizer_of(net.sizes(), training),
        inputs=inputs,
        labels=labels,
        settings=settings,
        precision=precision,
        device=device,
        key=_key(problem, fit, settings, len(inputs), precision, device),
        checkpoint=checkpoint,
        checkpoint_s=checkpoint_s,
    )
    losses = trainer.run(progress)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values()):
        raise _diverged("the trained weights are", settings)
    net.zero_grad(set_to_none=True)
    return TrainedPruningNet(net.cpu().eval(), losses)


def check_memory(problem: PruningProblem, settings: PruningNetSettings) -> None:
    """Refuse a training that this machine has no memory for: a PruningNet is some 33 times as large as its network.

    Raises:
        SearchError: There is less memory than predictions, their gradients and two moments of them take.

    """
    layers = problem.network.layers()
    names = {name for group in problem.groups for name in (*group.producers, *group.consumers)}
    values = sum(
        layer.weight.numel() for name, layer in layers.items() if name in names and isinstance(layer, PRODUCERS)
    )
    needed, there = 4 * 4 * (settings.hidden + 1) * values, memory_bytes()
    if there is not None and needed > there:
        raise SearchError(
            f"training a PruningNet for this network takes about {needed / 1e9:.1f} GB of memory, this machine has "
            f"{there / 1e9:.1f} GB; choose another policy than metapruning, or a machine with more"
        )


@dataclass(slots=True)
class _Trainer:
    """All that one training works with, and how far it is."""

    net: PruningNet
    teacher: torch.nn.Module | None
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    labels: Tensor | None
    settings: PruningNetSettings
    precision: str
    device: torch.device
    key: str
    checkpoint: Path | None
    checkpoint_s: float
    position: Position = field(default_factory=Position)

    def run(self, progress: Progress | None) -> tuple[float, ...]:
        """Go on to the end from where the checkpoint stands; return the mean loss of every epoch."""
        if self.checkpoint is not None:
            self.position = read(self.checkpoint, self.key, self.net, self.optimizer) or Position()
        training, last = self.settings.training, time.monotonic()
        steps = len(self._batches(0))
        total, done = training.epochs * steps, self.position.step
        for epoch in range(done // steps, training.epochs):
            batches = self._batches(epoch)
            for chosen in batches[self.position.step - epoch * steps :]:
                self._advance(self._step(chosen, training.learning_rate_at(self.position.step, steps)), steps)
                if time.monotonic() - last > self.checkpoint_s and self.position.step < total:
                    self._save()
                    last = time.monotonic()
                self._report(progress, steps, total)
        if self.position.step > done:
            self._save()
        return self.position.losses

    def _batches(self, epoch: int) -> list[Tensor]:
        """Return the images of each step of an epoch."""
        return shuffled(len(self.inputs), self.settings.training.batch_size, self._generator(_ORDER, epoch))

    def _advance(self, loss: float, steps: int) -> None:
        """Note a step and its loss."""
        before = self.position
        step, running = before.step + 1, before.running + loss
        if not math.isfinite(running):
            raise _diverged(f"at step {step} the loss is", self.settings)
        if step % steps:
            self.position = Position(step, before.losses, running)
        else:
            self.position = Position(step, (*before.losses, running / steps))

    def _report(self, progress: Progress | None, steps: int, total: int) -> None:
        """Tell how far it is; where that ends the training, write down where it stands first."""
        if progress is None:
            return
        at = self.position
        within = at.step % steps
        loss = at.running / within if within else at.losses[-1]
        try:
            text = f"epoch {-(-at.step // steps)} of {self.settings.training.epochs}, loss {loss:.3f}"
            progress(at.step, total, text)
        except Cancelled:
            self._save()
            raise

    def _save(self) -> None:
        """Write down where the training stands; where that fails, it goes on without."""
        if self.checkpoint is None:
            return
        with suppress(OSError):
            write(self.checkpoint, self.key, self.position, self.net, self.optimizer)

    def _step(self, chosen: Tensor, learning_rate: float) -> float:
        """Take one step on the images `chosen`, ``(batch,)``, at random widths; return the loss before it."""
        training, number = self.settings.training, self.position.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        images = self.inputs[chosen]
        if training.augment:
            images = augmented(images, self._generator(_AUGMENTATION, number), flip=training.flip)
        images = batch_on(images, self.device)
        labels = None if self.labels is None else self.labels[chosen].to(self.device)
        plan = random_plan(self.net.problem, np.random.default_rng([training.seed, _WIDTHS, number]))
        module, weights = self.net.cropped(plan)
        student = without_softmax(module.to(self.device)).train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            with torch.no_grad():
                target = None if self.teacher is None else without_softmax(self.teacher)(images).float()
            logits = torch.func.functional_call(student, weights, (images,)).float()
        loss = training_loss(logits, labels, target, training)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        """Return a generator for one purpose at one step or epoch."""
        sequence = np.random.SeedSequence([self.settings.training.seed, purpose, number])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def _key(
    problem: PruningProblem,
    fit: Split,
    settings: PruningNetSettings,
    images: int,
    precision: str,
    device: torch.device,
) -> str:
    """Return the name of everything that a training depends on."""
    facts = {
        "version": VERSION,
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "network": problem.network.fingerprint(),
        "groups": problem.names,
        "widths": [width.tolist() for width in problem.widths],
        "order": problem.order,
        "fit": fit.sha256,
        "images": images,
        "settings": asdict(settings),
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _diverged(what: str, settings: PruningNetSettings) -> NumericalError:
    """Say what is not finite, and what to do."""
    return NumericalError(
        f"the training of the PruningNet diverged: {what} not finite; use a learning rate below "
        f"{settings.training.learning_rate:g}, and check the images for NaN"
    )
