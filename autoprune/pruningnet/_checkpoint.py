"""Where a training stands, on disk: safetensors with a line of JSON, whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.formats.checkpoint_file import load_checkpoint, save_checkpoint
from autoprune.recovery.optimizer import optimizer_tensors, restore_optimizer

FORMAT = "autoprune-pruningnet/1"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training is.

    Attributes:
        step: Steps done.
        losses: Mean loss of every epoch that is complete.
        running: Sum of the losses in the epoch that is not.

    """

    step: int = 0
    losses: tuple[float, ...] = ()
    running: float = 0.0


def write(path: Path, key: str, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write everything that the rest of a training depends on, optimizer state included.

    Args:
        path: The file; its folder is made.
        key: Name of the training: of all that it depends on.
        position: How far it is.
        model: What is trained.
        optimizer: Of `model`.

    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | optimizer_tensors(optimizer)
    facts = {"step": position.step, "losses": list(position.losses), "running": position.running}
    save_checkpoint(path, FORMAT, key, facts, tensors)


def read(path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position | None:
    """Take over where a training stood; None, and nothing changed, where the file is missing, damaged or another's."""
    found = load_checkpoint(path, FORMAT, key)
    if found is None:
        return None
    facts, tensors = found
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    if _shapes(weights) != _shapes(model.state_dict()):
        return None
    model.load_state_dict(weights)
    restore_optimizer(optimizer, tensors)
    return Position(facts["step"], tuple(facts["losses"]), facts["running"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Return what kind of tensors these are."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
