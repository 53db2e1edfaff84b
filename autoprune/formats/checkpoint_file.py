"""Checkpoints: tensors and a line of JSON in one safetensors file, whole or not at all. Nothing in it is run."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from autoprune.files import write_whole

#: Where the line of JSON stands among a file's metadata.
_ENTRY = "checkpoint"


class CheckpointFile(NamedTuple):
    """What a checkpoint holds; unpacks.

    Attributes:
        facts: Data of the line of JSON.
        tensors: By name, on the CPU.

    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def save_checkpoint(
    path: Path, kind: str, key: str, facts: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> None:
    """Write a checkpoint, completely or not at all, so that it outlives a loss of power; make its folder.

    Args:
        path: The file.
        kind: Of checkpoint, with its version.
        key: Names all that the checkpoint depends on (:func:`key_of`).
        facts: JSON-ready data.
        tensors: By name, on any device.

    Raises:
        OSError: It cannot be written; what the file held before stays.

    """
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    header = {"kind": kind, "key": key, "facts": facts, "content": key_of({"facts": facts, "tensors": own})}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(own, {_ENTRY: json.dumps(header)}), durable=True)


def load_checkpoint(path: Path, kind: str, key: str) -> CheckpointFile | None:
    """Read a checkpoint; None where it is missing, damaged, or of another kind or key."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_ENTRY])
            if (header["kind"], header["key"]) != (kind, key):
                return None
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["content"] != key_of({"facts": header["facts"], "tensors": tensors}):
            return None
        return CheckpointFile(header["facts"], tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None


def key_of(facts: Mapping[str, object]) -> str:
    """Return the name of plain values, tensors and functions, in any order of their names: a hash."""
    return hashlib.sha256(json.dumps(_plain(facts), sort_keys=True).encode()).hexdigest()


def _plain(fact: object) -> object:
    """Return what JSON can hold: a hash of a tensor, the name of a function, the values of its settings included."""
    if isinstance(fact, Tensor):
        content = fact.detach().cpu().contiguous()
        octets = content.view(-1).view(torch.uint8).numpy().data  # no copy: images may be many
        return [list(content.shape), str(content.dtype), hashlib.sha256(octets).hexdigest()]
    if isinstance(fact, Mapping):
        return {str(name): _plain(value) for name, value in fact.items()}
    if dataclasses.is_dataclass(fact) and not isinstance(fact, type):
        values = {field.name: _plain(getattr(fact, field.name)) for field in dataclasses.fields(fact)}
        return {type(fact).__qualname__: values}
    if callable(fact):
        return getattr(fact, "__qualname__", repr(fact))
    return fact
