"""A fine-tuning that is killed goes on from its checkpoint and ends as if nothing had been, bit for bit."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from autoprune.errors import Cancelled, SearchError
from autoprune.network.layers import Add
from autoprune.recovery.checkpoint import LONGEST_S
from autoprune.recovery.finetune import Checkpoint, FinetuneResult, FinetuneSettings, finetune
from autoprune.recovery.position import Position

CPU = torch.device("cpu")
IMAGES, BATCH, EPOCHS = 76, 16, 3
STEPS = 4  # of an epoch; 12 images are left over

SGD = FinetuneSettings(
    epochs=EPOCHS, optimizer="sgd", learning_rate=0.02, warmup_epochs=1.5, batch_size=BATCH, distillation=0.5,
    weight_decay=0.01, label_smoothing=0.1, freeze_batchnorm=False,
)  # fmt: skip
RELATIVE = FinetuneSettings(epochs=EPOCHS, learning_rate=0.02, batch_size=BATCH, flip=False)

CASES: dict[str, dict[str, Any]] = {
    "sgd": {"settings": SGD},
    "without momentum": {"settings": replace(SGD, momentum=0.0, weight_decay=0.0, augment=False)},
    "relative": {"settings": RELATIVE},
    "adamw without labels": {"settings": replace(RELATIVE, optimizer="adamw"), "labels": None},
    "bf16": {"settings": RELATIVE, "precision": "bf16"},
    "labels alone": {"settings": replace(SGD, distillation=0.0), "teacher": None},
    "chosen images from a step in an epoch": {
        "settings": replace(SGD, epochs=4),
        "chosen": torch.arange(70) * 3 % IMAGES,
        "first_step": 6,
    },
}


class Killed(Exception):  # noqa: N818 - as abrupt as SIGKILL, as far as a training can tell
    """Nobody in a training catches it."""


class Randomised(nn.Module):
    """Keeps a buffer that ``state_dict`` leaves out, and draws at random."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images with noise that grows from call to call."""
        if not self.training:
            return images
        self.calls += 1
        return images + 0.01 * self.calls * torch.randn_like(images)


def network(seed: int, width: int = 6) -> fx.GraphModule:
    """A residual CNN with dropout, a grouped and a pointwise convolution, for 16 x 16 images of one channel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.ModuleDict({
            "noise": Randomised(), "first": nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            "norm": nn.BatchNorm2d(8), "inner": nn.Conv2d(8, width, 1), "drop": nn.Dropout(0.2),
            "outer": nn.Conv2d(width, 8, 3, padding=1, groups=2), "add": Add(), "relu": nn.ReLU(),
            "flat": nn.Flatten(), "head": nn.Linear(8 * 64, 5),
        })  # fmt: skip
    graph = fx.Graph()
    image = graph.placeholder("image")
    stem = image
    for name in ("noise", "first", "norm"):
        stem = graph.call_module(name, (stem,))
    branch = stem
    for name in ("inner", "drop", "outer"):
        branch = graph.call_module(name, (branch,))
    end = graph.call_module("add", (stem, branch))
    for name in ("relu", "flat", "head"):
        end = graph.call_module(name, (end,))
    graph.output(end)
    return fx.GraphModule(layers, graph).eval()


@cache
def arguments() -> dict[str, Any]:
    """Everything that a fine-tuning takes, but for its settings."""
    generator = torch.Generator().manual_seed(1)
    return {
        "module": network(2, width=4),
        "inputs": torch.randn(IMAGES, 1, 16, 16, generator=generator),
        "labels": torch.randint(0, 5, (IMAGES,), generator=generator),
        "teacher": network(3),
        "device": CPU,
    }


def tune(checkpoint: Checkpoint | None = None, **changes: object) -> FinetuneResult[nn.Module]:
    """Fine-tune."""
    given: dict[str, Any] = {"settings": SGD, **arguments(), **changes}
    return finetune(**given, checkpoint=checkpoint)


@cache
def whole(case: str) -> FinetuneResult[nn.Module]:
    """Return what a case comes to without an interruption."""
    return tune(**CASES[case])


def every_step(path: Path) -> Checkpoint:
    return Checkpoint(path, every_s=0, most_share=math.inf)


def every_epoch(path: Path) -> Checkpoint:
    return Checkpoint(path, every_s=math.inf, most_share=math.inf)


def killer(last: int, seen: list[int], error: type[Exception] = Killed) -> Callable[[int, int, str], None]:
    """Return a progress that ends a training behind step `last`."""

    def progress(done: int, total: int, text: str) -> None:
        seen.append(done)
        if done == last:
            raise error(text)

    return progress


def assert_same(found: FinetuneResult[nn.Module], expected: FinetuneResult[nn.Module]) -> None:
    """Equal to the bit, buffers that ``state_dict`` leaves out included."""
    for one, other in zip(tensors(found.module), tensors(expected.module), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1]), one[0]
    assert [(e.loss, e.learning_rate) for e in found.history] == [(e.loss, e.learning_rate) for e in expected.history]
    assert all(epoch.seconds > 0 for epoch in found.history)


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def steps_of(case: str) -> tuple[int, int]:
    """Return the first and the last step that a case takes."""
    return CASES[case].get("first_step", 0) + 1, CASES[case]["settings"].epochs * STEPS


@pytest.mark.parametrize("case", CASES)
def test_killed_at_a_step_it_ends_the_same(case: str, tmp_path: Path) -> None:
    """The first step, the last but one, the last and the first of an epoch, and the last of all."""
    first, total = steps_of(case)
    for last in sorted({first, 7, 8, 9, total}):
        path, before, after = tmp_path / f"{last}", list[int](), list[int]()
        with pytest.raises(Killed):
            tune(every_step(path), **CASES[case], progress=killer(last, before))
        state = torch.random.get_rng_state()
        assert_same(tune(every_step(path), **CASES[case], progress=killer(-1, after)), whole(case))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert before + after == list(range(first, total + 1))


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_from_the_end_of_the_last_epoch(case: str, tmp_path: Path) -> None:
    first, total = steps_of(case)
    for last in (first, 8, 10):
        path, after = tmp_path / f"{last}", list[int]()
        with pytest.raises(Killed):
            tune(every_epoch(path), **CASES[case], progress=killer(last, []))
        assert_same(tune(every_epoch(path), **CASES[case], progress=killer(-1, after)), whole(case))
        assert after == list(range(max(first, last // STEPS * STEPS + 1), total + 1))


def test_killed_over_and_over_it_ends_the_same(tmp_path: Path) -> None:
    seen: list[int] = []
    for last in range(1, EPOCHS * STEPS + 1):
        with pytest.raises(Killed):
            tune(every_step(tmp_path / "file"), progress=killer(last, seen))
    assert seen == list(range(1, EPOCHS * STEPS + 1))
    assert_same(tune(every_step(tmp_path / "file"), progress=killer(-1, seen)), whole("sgd"))
    assert len(seen) == EPOCHS * STEPS  # the last checkpoint holds the end


def test_cancelled_it_loses_no_step(tmp_path: Path) -> None:
    for last in (1, 4, 6, 12):
        path, seen = tmp_path / f"{last}", list[int]()
        with pytest.raises(Cancelled):
            tune(every_epoch(path), progress=killer(last, seen, Cancelled))
        assert_same(tune(every_epoch(path), progress=killer(-1, seen)), whole("sgd"))
        assert seen == list(range(1, EPOCHS * STEPS + 1))


def test_its_end_takes_the_space_of_the_network_alone(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tune(every_step(tmp_path / "middle"), progress=killer(5, []))
    tune(Checkpoint(tmp_path / "end"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["end", "middle"]
    assert (tmp_path / "end").stat().st_size < (tmp_path / "middle").stat().st_size - 4 * 8 * 64 * 5


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6000] ^= 1
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [cut_off, empty, altered, a_folder, Path.unlink])
def test_a_damaged_file_is_as_good_as_none(harm: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tune(every_step(tmp_path / "file"), progress=killer(7, []))
    harm(tmp_path / "file")
    seen: list[int] = []
    assert_same(tune(every_step(tmp_path / "file"), progress=killer(-1, seen)), whole("sgd"))
    assert seen == list(range(1, EPOCHS * STEPS + 1))


def other_weights(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    return other


def other_dropout(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    drop = other.get_submodule("drop")
    assert isinstance(drop, nn.Dropout)
    drop.p = 0.3
    return other


def another() -> dict[str, dict[str, Any]]:
    """Return changes that make another training."""
    given = arguments()
    inputs, labels = given["inputs"].clone(), given["labels"].clone()
    inputs[-1, 0, 0, 0] += 1
    labels[-1] = (labels[-1] + 1) % 5
    settings: dict[str, Any] = {
        "epochs": 4, "optimizer": "adamw", "learning_rate": 0.021, "warmup_epochs": 1.0, "momentum": 0.8,
        "weight_decay": 0.02, "batch_size": 15, "label_smoothing": 0.2, "distillation": 0.6, "temperature": 3.0,
        "hints": 9.0, "freeze_batchnorm": True, "augment": False, "flip": False, "seed": 1,
    }  # fmt: skip
    assert settings.keys() == set(FinetuneSettings.__slots__)
    return {
        **{name: {"settings": replace(SGD, **{name: value})} for name, value in settings.items()},
        "inputs": {"inputs": inputs},
        "labels": {"labels": labels},
        "no labels": {"labels": None},
        "weights": {"module": other_weights(given["module"])},
        "dropout": {"module": other_dropout(given["module"])},
        "width": {"module": network(2, width=6)},
        "teacher": {"teacher": other_weights(given["teacher"])},
        "no teacher": {"teacher": None},
        "precision": {"precision": "bf16"},
        "chosen": {"chosen": torch.arange(IMAGES).flip(0)},
        "first step": {"first_step": 1},
    }


@pytest.mark.parametrize("what", another())
def test_a_checkpoint_of_another_training_is_not_used(what: str, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tune(every_step(tmp_path / "file"), progress=killer(7, []))
    changes, seen = another()[what], list[int]()
    assert_same(tune(every_step(tmp_path / "file"), progress=killer(-1, seen), **changes), tune(**changes))
    assert seen[0] == 1 + changes.get("first_step", 0)


def test_another_number_of_threads_is_another_training(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Killed):
        tune(every_step(tmp_path / "file"), progress=killer(7, []))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(Killed):
            tune(every_step(tmp_path / "file"), progress=killer(1, seen))
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_where_no_file_can_be_written_it_trains_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert_same(tune(every_step(tmp_path / "file" / "checkpoint")), whole("sgd"))


def test_what_a_function_remembers_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="does not hold what a penalty or a call after each step remembers"):
        tune(Checkpoint(tmp_path / "file"), penalty=lambda _: torch.zeros(()))
    with pytest.raises(SearchError, match="leave it out"):
        tune(Checkpoint(tmp_path / "file"), after_step=lambda *_: None)


def test_it_is_written_where_that_costs_little(tmp_path: Path) -> None:
    def due(checkpoint: Checkpoint) -> tuple[bool, bool]:
        return checkpoint.is_due(epoch_ends=True), checkpoint.is_due(epoch_ends=False)

    frugal, seldom, eager = (
        Checkpoint(tmp_path / "a", every_s=0, most_share=1e-9),
        every_epoch(tmp_path / "b"),
        every_step(tmp_path / "c"),
    )
    assert [due(each) for each in (frugal, seldom, eager)] == [(True, True), (True, False), (True, True)]
    for each in (frugal, seldom, eager):
        each.write("key", Position(1), {"a": torch.zeros(9)})
    assert [due(each) for each in (frugal, seldom, eager)] == [(False, False), (True, False), (True, True)]


def test_however_long_it_takes_it_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoint(tmp_path / "file", most_share=1e-9)
    kept.write("key", Position(1), {"weight": torch.zeros(1)})
    written_s = time.monotonic()
    for after_s, due in ((LONGEST_S - 10, False), (LONGEST_S + 1, True)):
        monkeypatch.setattr(time, "monotonic", lambda after_s=after_s: written_s + after_s)
        assert [kept.is_due(epoch_ends=ends) for ends in (True, False)] == [due, due]
