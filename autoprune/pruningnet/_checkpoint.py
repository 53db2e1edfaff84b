"""Where a training stands, on disk: safetensors with a line of JSON, whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from autoprune.files import write_whole

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
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | _state(optimizer)
    header = {
        "format": FORMAT,
        "key": key,
        "step": position.step,
        "losses": list(position.losses),
        "running": position.running,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(own, {"training": json.dumps(header)}))


def read(path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position | None:
    """Take over where a training stood; None, and nothing changed, where the file is missing, damaged or another's."""
    try:
        with safe_open(path, "pt") as file:
            position = _position((file.metadata() or {}).get("training", ""), key)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    if position is None or _shapes(weights) != _shapes(model.state_dict()):
        return None
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".", 2)
            state.setdefault(int(number), {})[what] = tensor
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return position


def _position(text: str, key: str) -> Position | None:
    """Read the line of JSON; None where it is another training's."""
    header = json.loads(text)
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("key") != key:
        return None
    return Position(int(header["step"]), tuple(map(float, header["losses"])), float(header["running"]))


def _state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's tensors by name."""
    return {
        f"optimizer.{number}.{what}": value
        for number, values in optimizer.state_dict()["state"].items()
        for what, value in values.items()
        if isinstance(value, Tensor)
    }


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Return what kind of tensors these are."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
