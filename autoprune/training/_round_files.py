"""The rounds of a pruning that are done, on disk: a safetensors file each with a line of JSON, whole or not at all."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from autoprune.files import write_whole
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
        header = {"format": FORMAT, "key": self._key, "losses": list(state.losses)}
        parts = {"mask": {name: mask.to(torch.uint8) for name, mask in state.masks.items()}}
        parts |= {"trained": dict(state.trained), "start": dict(state.start)}
        tensors = {f"{part}.{name}": tensor for part, each in parts.items() for name, tensor in each.items()}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"round": json.dumps(header)})
        write_whole(self._path(number), content)
        number += 1
        while self._path(number).exists():
            self._path(number).unlink()
            number += 1

    def read(self, number: int, network: Network) -> RoundState | None:
        """Return a round of `network`; None where its file is missing, damaged or of another pruning."""
        try:
            with safe_open(self._path(number), "pt") as file:
                header = json.loads((file.metadata() or {}).get("round", ""))
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["format"] != FORMAT or header["key"] != self._key:
                return None
            losses = tuple(map(float, header["losses"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            return None
        masks = {name: mask.bool() for name, mask in _part(tensors, "mask").items()}
        trained, start = _part(tensors, "trained"), _part(tensors, "start")
        expected = _shapes(network.module.state_dict())
        fits = _shapes(trained) == expected and (not start or _shapes(start) == expected)
        if not fits or _shapes(masks) != _shapes(weights_of(network)):
            return None
        in_order = {name: masks[name] for name in weights_of(network)}
        return RoundState(in_order, trained, start, losses)

    def _path(self, number: int) -> Path:
        """Return the file of a round."""
        return self._folder / f"round-{number:02}.safetensors"


def key_of(facts: Mapping[str, object]) -> str:
    """Return the name of all that a pruning depends on: plain values, tensors and functions."""
    return hashlib.sha256(json.dumps({name: _plain(fact) for name, fact in facts.items()}).encode()).hexdigest()


def _plain(fact: object) -> object:
    """Return what JSON can hold: a hash of a tensor, the name of a function, the values of its settings included."""
    if isinstance(fact, Tensor):
        content = fact.detach().cpu().contiguous()
        return [list(content.shape), str(content.dtype), hashlib.sha256(content.numpy().tobytes()).hexdigest()]
    if isinstance(fact, Mapping):
        return {str(name): _plain(value) for name, value in fact.items()}
    if dataclasses.is_dataclass(fact) and not isinstance(fact, type):
        values = {field.name: _plain(getattr(fact, field.name)) for field in dataclasses.fields(fact)}
        return {type(fact).__qualname__: values}
    if callable(fact):
        return getattr(fact, "__qualname__", repr(fact))
    return fact


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part by their own names."""
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}
