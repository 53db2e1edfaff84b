"""The rounds of a pruning that are done, on disk: a safetensors file each with a line of JSON, whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoprune.formats.checkpoint_file import load_checkpoint, save_checkpoint
from autoprune.network.network import Network
from autoprune.training.weight_scores import weights_of

FORMAT = "autoprune-round/1"

#: So much of a key names a folder.
_LETTERS = 12

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class RoundState:
    """What the next round, and whoever asks for the result, needs of one.

    Attributes:
        masks: Which weights stayed, by layer.
        trained: Parameters and buffers after its training.
        start: Parameters and buffers at the step that weights are put back to; empty where that is known otherwise.
        losses: Mean loss of every epoch of its training.

    """

    masks: Mapping[str, Tensor]
    trained: State
    start: State
    losses: tuple[float, ...]


class RoundFiles:
    """The files of one pruning: ``round-00.safetensors``, ``round-01.safetensors``, ... in a folder of its own."""

    def __init__(self, folder: Path, key: str) -> None:
        """Keep rounds in a folder below `folder`, which is made, by `key`, the name of all that they depend on."""
        self._folder, self._key = folder / key[:_LETTERS], key
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, number: int, state: RoundState) -> None:
        """Write one round, completely or not at all; those behind it are then of another run, and go."""
        parts = {"mask": {name: mask.to(torch.uint8) for name, mask in state.masks.items()}}
        parts |= {"trained": dict(state.trained), "start": dict(state.start)}
        tensors = {f"{part}.{name}": tensor for part, each in parts.items() for name, tensor in each.items()}
        save_checkpoint(self._path(number), FORMAT, self._key, {"losses": list(state.losses)}, tensors)
        number += 1
        while self._path(number).exists():
            self._path(number).unlink()
            number += 1

    def read(self, number: int, network: Network) -> RoundState | None:
        """Return a round of `network`; None where its file is missing, damaged or of another pruning."""
        found = load_checkpoint(self._path(number), FORMAT, self._key)
        if found is None:
            return None
        facts, tensors = found
        masks = {name: mask.bool() for name, mask in _part(tensors, "mask").items()}
        trained, start = _part(tensors, "trained"), _part(tensors, "start")
        expected = _shapes(network.module.state_dict())
        fits = _shapes(trained) == expected and (not start or _shapes(start) == expected)
        if not fits or _shapes(masks) != _shapes(weights_of(network)):
            return None
        in_order = {name: masks[name] for name in weights_of(network)}
        return RoundState(in_order, trained, start, tuple(facts["losses"]))

    def _path(self, number: int) -> Path:
        """Return the file of a round."""
        return self._folder / f"round-{number:02}.safetensors"


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part by their own names."""
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}
