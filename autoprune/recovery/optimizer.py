"""The optimizer of a training, and its state by name."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from autoprune.recovery.finetune_settings import FinetuneSettings


def optimizer_of(sized: Iterable[tuple[nn.Parameter, float]], settings: FinetuneSettings) -> torch.optim.Optimizer:
    """Return the optimizer; weights decay, biases and batch norm do not.

    Args:
        sized: Parameters, each with the size that a relative rate is relative to.
        settings: Of the training. The rate of a group of parameters has to be multiplied by its ``"scale"``.

    """
    relative = settings.optimizer == "relative-adamw"
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, size in sized:
        decay = settings.weight_decay if parameter.dim() > 1 else 0.0
        alike.setdefault((decay, size if relative else 1.0), []).append(parameter)
    groups = [{"params": each, "weight_decay": decay, "scale": scale} for (decay, scale), each in alike.items()]
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def size_of(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's values; at least 0.001, so that zeros move (Shazeer 2018)."""
    return max(0.001, float(tensor.detach().square().mean().sqrt()))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers, by name: ``optimizer.PARAMETER.WHAT``, parameters by their numbers."""
    return {
        f"optimizer.{number}.{what}": value
        for number, values in optimizer.state_dict()["state"].items()
        for what, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimizer what another one remembered, of :func:`optimizer_tensors`; other names are left alone."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".", 2)
            parameter = parameters[int(number)]
            if tensor.dim() > 0 and tensor.shape == parameter.shape:  # in the layout that it had
                tensor = torch.empty_like(parameter.detach()).copy_(tensor)
            state.setdefault(int(number), {})[what] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
