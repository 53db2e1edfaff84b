"""Where a fine-tuning stands, on disk, so that one that was killed goes on."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from autoprune.formats.checkpoint_file import key_of, load_checkpoint, save_checkpoint
from autoprune.recovery.position import Epoch, Position

FORMAT = "autoprune-finetuning/1"

#: Raised whenever the same arguments would give other weights: older checkpoints are then not used.
VERSION = 1

#: Seconds between two checkpoints within an epoch.
EVERY_S = 60.0

#: Share of the time that may go into checkpoints, and the seconds after which one is written all the same.
MOST_SHARE, LONGEST_S = 0.02, 600.0


class Checkpoint:
    """Keeps one fine-tuning in a file: at the end of every epoch, and now and then in between.

    Both as long as that costs a small share of the time, or ten minutes have gone by; where a file cannot be written,
    training goes on without.
    """

    def __init__(self, path: Path, *, every_s: float = EVERY_S, most_share: float = MOST_SHARE) -> None:
        """Keep it in the file `path`, whose folder is made.

        Args:
            path: The file.
            every_s: Least seconds between two checkpoints within an epoch.
            most_share: Share of the time that may go into checkpoints; infinity for any.

        """
        self._path, self._every_s, self._most_share = path, every_s, most_share
        self._last_s, self._took_s = time.monotonic(), 0.0

    def is_due(self, *, epoch_ends: bool) -> bool:
        """Tell whether to write now."""
        least = min(self._took_s / self._most_share, LONGEST_S)
        return time.monotonic() - self._last_s >= (least if epoch_ends else max(least, self._every_s))

    def write(self, key: str, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Write where the fine-tuning of this name stands, completely or not at all."""
        started = time.monotonic()
        with suppress(OSError):
            save_checkpoint(self._path, FORMAT, key, asdict(position), tensors)
        self._last_s = time.monotonic()
        self._took_s = self._last_s - started

    def read(self, key: str) -> tuple[Position, dict[str, Tensor]] | None:
        """Return where the fine-tuning of this name stood; None where the file is missing, damaged or another's."""
        self._last_s = time.monotonic()
        found = load_checkpoint(self._path, FORMAT, key)
        if found is None:
            return None
        history = tuple(Epoch(**epoch) for epoch in found.facts.pop("history"))
        return Position(history=history, **found.facts), found.tensors

    def remove(self) -> None:
        """Remove the file, where there is one."""
        self._path.unlink(missing_ok=True)


def training_key(module: nn.Module, teacher: nn.Module | None, device: torch.device, **facts: object) -> str:
    """Return the name of all that a fine-tuning depends on.

    Of the networks that is their layers with all settings, wiring of graphs, and all parameters and buffers. What the
    code of a network that is no graph does beyond its layers is told by the name of its class alone.

    Args:
        module: Before training.
        teacher: The unpruned network.
        device: Where it is trained.
        facts: Plain values, dataclasses and tensors, by name.

    """
    own = {
        "version": VERSION,
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "module": _described(module),
        "teacher": None if teacher is None else _described(teacher),
    }
    return key_of(own | facts)


def _described(module: nn.Module) -> dict[str, object]:
    """Return all that tells a network from others."""
    layers = {
        name: [f"{type(layer).__module__}.{type(layer).__qualname__}", _settings(layer)]
        for name, layer in module.named_modules()
        if not isinstance(layer, fx.GraphModule)
    }
    return {
        "layers": layers,
        "wiring": str(module.graph) if isinstance(module, fx.GraphModule) else None,
        "tensors": dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers()),
        "parameters": [name for name, _ in module.named_parameters()],  # of a shared one the first name
    }


def _settings(layer: nn.Module) -> str:
    """Return the settings of a layer in words."""
    return repr(sorted((k, v) for k, v in vars(layer).items() if not k.startswith("_") and k != "training"))
