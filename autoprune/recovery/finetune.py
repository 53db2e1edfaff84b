"""Fine-tuning of a pruned network, with the unpruned one as teacher."""

import copy
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from autoprune.errors import DatasetError, ModelError, SearchError
from autoprune.evaluation.metrics import check_labels, predict
from autoprune.network.device import batch_on, default_device, ready
from autoprune.network.logits import final_softmax, without_softmax
from autoprune.recovery._hints import compared
from autoprune.recovery._trainer import AfterStep, Penalty, Progress, Trainer, diverged, shuffled, training_loss
from autoprune.recovery.checkpoint import Checkpoint, training_key
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.recovery.optimizer import optimizer_of, size_of
from autoprune.recovery.position import Epoch

__all__ = [
    "AfterStep", "Checkpoint", "Epoch", "FinetuneResult", "FinetuneSettings", "Penalty", "Progress", "finetune",
    "shuffled", "training_loss",
]  # fmt: skip

Net = TypeVar("Net", bound=nn.Module)


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
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    precision: str = "fp32",
    device: torch.device | None = None,
) -> FinetuneResult[Net]:
    """Train a copy of `module` on the fit split.

    The final weights are returned: nothing is selected on any split. On a CPU the result depends on the arguments and
    the number of threads alone, bit for bit, whether it ran through or was killed and went on from its checkpoint; the
    global random state is neither used nor changed. Images are shuffled anew in each epoch; those left over when the
    last batch is not full are left out of that epoch.

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
        checkpoint: Goes on from there, where it is of this very training, and keeps it; not with `penalty` or
            `after_step`, which may remember what nobody knows of. None for none.
        progress: Called after each step; what it raises stops the training, :class:`Cancelled` with a checkpoint.
        precision: Of both networks' passes, ``"fp32"`` or ``"bf16"`` (autocast); weights and updates stay float32.
        device: Where to train; :func:`autoprune.network.device.default_device` if None.

    Raises:
        DatasetError: Fewer than two images, labels that do not fit, or neither labels nor a teacher.
        ModelError: The network has no weights, or other classes than its teacher.
        SearchError: `first_step` is not one of the schedule's, or a checkpoint of what one cannot hold.
        NumericalError: The loss or a weight is not finite.

    """
    if checkpoint is not None and (penalty is not None or after_step is not None):
        raise SearchError("a checkpoint does not hold what a penalty or a call after each step remembers; leave it out")
    model = copy.deepcopy(module).cpu().eval()
    if settings.epochs == 0:
        return FinetuneResult(model, ())
    device = device or default_device()
    key = ""
    if checkpoint is not None:
        key = training_key(
            module, teacher, device,
            inputs=inputs, labels=labels, chosen=chosen, settings=settings, first_step=first_step, precision=precision,
        )  # fmt: skip
    softmax = final_softmax(model)
    if softmax is not None:  # losses take logits
        end = model.get_submodule(softmax)
        model.set_submodule(softmax, nn.Identity())
        teacher = None if teacher is None else without_softmax(teacher)
    _check(model, inputs, labels, teacher, device)
    chosen = torch.arange(len(inputs)) if chosen is None else chosen
    _check_first_step(first_step, len(chosen), settings)
    model = model.to(device=device, memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]  # missing in torch's stubs
    teacher = None if teacher is None else ready(teacher, device)
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    taught = teacher if settings.hints > 0 else None
    with compared(model, taught, batch_on(inputs[:1], device)) as hint, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.seed)  # for layers that draw at random themselves
        history = Trainer(
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
            checkpoint=checkpoint,
            key=key,
        ).run(progress)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise diverged("the trained weights are", settings)
    model.zero_grad(set_to_none=True)
    if softmax is not None:
        model.set_submodule(softmax, end)
    return FinetuneResult(model.to(device="cpu", memory_format=torch.contiguous_format).eval(), history)


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
