"""Checkpoints come back as they were, or not at all."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autoprune.formats.checkpoint_file import key_of, load_checkpoint, save_checkpoint

FACTS = {"step": 3, "losses": [0.1, 1 / 3, 5e-324], "nothing": None}


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0)
    return {
        "weights": base.view(2, 3, 2, 2).to(memory_format=torch.channels_last),
        "shared": base[:6],
        "also shared": base[3:],
        "half": torch.tensor([1.5, math.inf], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    save_checkpoint(path, "kind/1", "key", FACTS, tensors())
    return path


def test_it_comes_back(file: Path) -> None:
    found = load_checkpoint(file, "kind/1", "key")
    assert found is not None
    assert found.facts == FACTS
    assert found.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_another_kind_or_key_is_none(file: Path) -> None:
    assert load_checkpoint(file, "kind/2", "key") is None
    assert load_checkpoint(file, "kind/1", "other") is None
    assert load_checkpoint(file.with_name("missing"), "kind/1", "key") is None
    assert load_checkpoint(file.parent, "kind/1", "key") is None


def test_cut_off_anywhere_it_is_none(file: Path) -> None:
    content = file.read_bytes()
    for size in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        assert load_checkpoint(file, "kind/1", "key") is None


def test_altered_anywhere_it_is_none_or_the_same(file: Path) -> None:
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = load_checkpoint(file, "kind/1", "key")
        assert found is None or (found.facts == FACTS and torch.equal(found.tensors["scalar"], torch.tensor(7)))


def test_another_file_is_none(file: Path) -> None:
    save_file({"weights": torch.zeros(2)}, file)
    assert load_checkpoint(file, "kind/1", "key") is None
    save_file({"weights": torch.zeros(2)}, file, {"checkpoint": "[1]"})
    assert load_checkpoint(file, "kind/1", "key") is None


def test_where_it_cannot_be_written_the_one_before_stays(file: Path) -> None:
    (file.parent / "file.tmp").mkdir()
    with pytest.raises(OSError, match=r"file\.tmp"):
        save_checkpoint(file, "kind/1", "key", {}, {})
    found = load_checkpoint(file, "kind/1", "key")
    assert found is not None
    assert found.facts == FACTS


def test_keys_tell_contents_apart() -> None:
    base = torch.arange(6.0)
    facts = [
        {"a": 1, "b": base},
        {"a": 2, "b": base},
        {"a": 1, "b": base + 1},
        {"a": 1, "b": base.view(2, 3)},
        {"a": 1, "b": base.double()},
        {"a": 1, "c": base},
        {"a": 1, "b": None},
        {"a": key_of, "b": base},
    ]
    assert len({key_of(each) for each in facts}) == len(facts)
    assert key_of({"b": base.clone(), "a": 1}) == key_of(facts[0])
    assert key_of({"a": 1, "b": torch.arange(12.0)[::2] / 2}) == key_of(facts[0])
