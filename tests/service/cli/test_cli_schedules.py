"""The commands that prune while they train, from scratch: pruning at initialisation, slimming, lottery tickets."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.certificate import count_onnx
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.network.layers import Reshape
from autoprune.network.network import NetworkBuilder
from autoprune.pruning.weight_masks import nonzero_weights
from autoprune.recovery.finetune import finetune
from autoprune.service.locks import held
from autoprune.training.masks import full_masks
from autoprune.training.patterns import Pattern, holds
from autoprune.training.rounds import kept_count
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, digits_network, digits_splits
from tests.service.commands import said

DATA = ("--data", "digits", "--no-augment", "--batch-size", "32", "--fit-images", "640")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "digits.onnx"
    network = digits_network()
    export_onnx(network.module, path, input_shape=network.input_shape)
    return path


def found(*arguments: str | Path) -> dict[str, Any]:
    answer = json.loads(said(*arguments, "--json"))
    assert isinstance(answer, dict)
    return answer


def test_synflow_prunes_at_initialisation_and_what_stays_is_trained(model: Path, tmp_path: Path) -> None:
    common = ("prune", model, *DATA, "--kept", "0.05", "--criterion", "synflow", "--rounds", "20", "--epochs", "0")
    bare = found(*common, "--from-scratch", "-o", tmp_path / "bare")
    tuned = found(*common, "--from-scratch", "--final-epochs", "3", "-o", tmp_path / "tuned")
    assert tuned["kept"] == bare["kept"]
    assert sum(bare["kept"].values()) == round(0.05 * 24_816)
    nonzero = nonzero_weights(load_network(tmp_path / "tuned" / "model.onnx"))
    assert list(nonzero.values()) == list(tuned["kept"].values())
    assert tuned["report"]["pruned"]["top1"] > 0.6 > bare["report"]["pruned"]["top1"]
    as_given = found(*common, "-o", tmp_path / "given")  # other weights, nothing is trained
    assert as_given["kept"] != bare["kept"]
    assert bare["report"]["unpruned"] == as_given["report"]["unpruned"]  # the network as it was given


def test_fresh_weights_need_labels(model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    common = ("prune", model, "--data", tmp_path / "unlabelled.npz", "--kept", "0.5", "--from-scratch")
    assert "for which it needs labels" in said(*common, "-o", tmp_path, code=2)


def test_two_of_every_four_weights_stay_after_training(model: Path, tmp_path: Path) -> None:
    stale = ("certificate.json", "model.int8.onnx", "plan.json", "finetune.json")  # of a model.onnx that is replaced
    for name in stale:
        (tmp_path / name).write_text("{}")
    options = ("--kept", "0.5", "--scope", "2:4", "--rounds", "1", "--epochs", "1", "-o", tmp_path)
    pruned = found("prune", model, *DATA, *options)
    assert not [name for name in stale if (tmp_path / name).exists()]
    network = load_network(tmp_path / "model.onnx")
    assert pruned["kept"] == {"conv0": 144, "conv1": 1728, "conv2": 3456, "conv3": 6912, "head": 240}
    assert list(nonzero_weights(network).values()) == list(pruned["kept"].values())
    assert all(holds(network, full_masks(network), Pattern(2, 4)).values())


def test_slim_cuts_channels_and_leaves_a_plan(model: Path, tmp_path: Path) -> None:
    common = ("slim", model, *DATA, "--batch-size", "16", "--kept", "0.6", "--final-epochs", "1", "-o", tmp_path)
    assert "give --soft-masks, --from-scratch" in said(*common, code=2)
    assert "has switched off all channels" in said(*common, "--from-scratch", "--epochs", "1", code=2)
    slim = found(*common, "--from-scratch", "--epochs", "8")
    assert sum(slim["kept"].values()) == kept_count(120, 0.6)
    assert slim["strength"] == pytest.approx(0.7 / (40 * 8 * 0.05), rel=0.02)
    assert slim["report"]["pruned"]["top1"] > 0.8
    assert slim["exported"]["cost"] == count_onnx(tmp_path / "model.onnx")
    again = json.loads(said("export", model, "--plan", tmp_path / "plan.json", "--pruned-weights",
                           tmp_path / "weights.safetensors", "-o", tmp_path / "again.onnx", "--json"))  # fmt: skip
    assert again["cost"] == slim["exported"]["cost"]


def test_slim_with_soft_masks_takes_a_trained_file_as_it_is(tmp_path: Path) -> None:
    fit, network = digits_splits().fit, digits_network()
    training = replace(FROM_SCRATCH, epochs=3)
    trained = finetune(network.module, fit.inputs[:640], fit.labels[:640], training, device=CPU).module  # type: ignore[index]
    export_onnx(trained, tmp_path / "trained.onnx", input_shape=network.input_shape)
    options = ("--kept", "0.7", "--epochs", "6", "--learning-rate", "0.05", "--strength", "0.04", "--final-epochs", "0")
    slim = found("slim", tmp_path / "trained.onnx", *DATA, *options, "--soft-masks", "-o", tmp_path)
    assert sum(slim["kept"].values()) == kept_count(120, 0.7)
    assert slim["report"]["unpruned"]["top1"] > 0.9
    assert slim["report"]["pruned"]["top1"] > 0.7


def test_lottery_rewinds_and_trains_its_control(model: Path, tmp_path: Path) -> None:
    common = ("lottery", model, *DATA, "--from-scratch", "--kept", "0.25", "--rounds", "2", "--epochs", "2")
    ticket = found(*common, "--rewind-steps", "5", "--control", "-o", tmp_path)
    assert [entry["kept"] for entry in ticket["rounds"]] == [24_816, 12_408, 6_204]
    assert sum(ticket["kept"].values()) == 6_204
    assert set(ticket["report"]) == {"unpruned", "pruned", "control"}
    assert ticket["search"]["pruned"] == ticket["rounds"][-1]["search"]
    assert len(list((tmp_path / "rounds").glob("*/*"))) == 3
    before = (tmp_path / "model.onnx").read_bytes()
    found(*common, "--rewind-steps", "5", "-o", tmp_path)  # nothing is trained again
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_a_share_may_be_rounded_for_its_pattern(model: Path, tmp_path: Path) -> None:
    options = ("--kept", "0.333333", "--scope", "1:3", "--rounds", "1", "--epochs", "0", "-o", tmp_path)
    assert found("prune", model, *DATA, *options)["kept"]["conv2"] == 24 * 32 * 9 // 3


def test_channels_go_evenly_by_rounds_until_the_tolerance_stops_it(model: Path, tmp_path: Path) -> None:
    common = ("prune", model, *DATA, "--unit", "channels", "--kept", "0.91", "--rounds", "10", "-o", tmp_path)
    history = found(*common)["history"]  # 11 of 120 channels
    assert [each["removed"] for each in history] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    stopped = said(*common, "--tolerance", "0", "--learning-rate", "1")
    assert "stopped by --tolerance: 0 of 11 channels went" in stopped
    answer = json.loads((tmp_path / "prune.json").read_text())
    assert answer["stopped_by_tolerance"]
    assert [each["removed"] for each in answer["history"]] == [0, 1]


def test_a_group_that_nothing_passes_through_any_more_is_no_error(tmp_path: Path) -> None:
    """Two channels of the second layer live by the weakest of the first, the others are off from the beginning."""
    b = NetworkBuilder("image", (1, 8, 8))
    first, second = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([0.1, 1, 1, 1]).view(4, 1, 1, 1))
        second.weight.zero_()[:2, 0] = 1
        second.bias.copy_(torch.tensor([-0.001, -0.001, -1, -1]))  # type: ignore[union-attr]
    x = b.add(nn.ReLU(), b.add(first, b.input, name="first"), name="relu1")
    x = b.add(nn.ReLU(), b.add(second, x, name="second"), name="relu2")
    x = b.add(Reshape((-1, 4)), b.add(nn.AdaptiveAvgPool2d(1), x, name="average"), name="flat")
    network = b.finish(b.add(nn.Linear(4, 10), x, name="head"))
    export_onnx(network.module, tmp_path / "given.onnx", input_shape=network.input_shape)
    common = ("prune", tmp_path / "given.onnx", *DATA, "--unit", "channels", "--kept", "0.25", "--rounds", "2")
    answer = found(*common, "--criterion", "mean-activation", "--learning-rate", "1e-6", "-o", tmp_path / "pruned")
    assert [each["removed"] for each in answer["history"]] == [0, 3, 6]


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--rounds", "2"), "rounds that are done are kept"), (("--schedule", "gradual"), "nothing is kept")],
)
def test_ctrl_c_says_what_is_kept(model: Path, tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    stopped = Event()

    def stop() -> None:
        while not (tmp_path / ".lock").exists():  # then Ctrl-C is listened to
            if stopped.wait(0.001):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=stop)
    thread.start()
    try:
        told = said("prune", model, *DATA, "--kept", "0.5", "--epochs", "50", *options, "-o", tmp_path, code=130)
    finally:
        stopped.set()
        thread.join()
    assert f"stopped; {expected}" in told


@pytest.mark.parametrize("command", ["prune", "slim", "lottery"])
def test_one_command_at_a_time_in_a_folder(model: Path, tmp_path: Path, command: str) -> None:
    with held(tmp_path / ".lock"):
        assert "another command is running there" in said(
            command, model, *DATA, "--kept", "0.5", "-o", tmp_path, code=2
        )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("prune", "--kept", "0.5", "--epochs", "0", "--unit", "channels"), "--epochs 0 belongs to rounds"),
        (("prune", "--kept", "0.5", "--epochs", "0", "--schedule", "gradual"), "--epochs 0 belongs to rounds"),
        (("prune", "--kept", "1e-4", "--epochs", "0"), "the maximal critical compression"),
        (("prune", "--kept", "0.4", "--scope", "2:4", "--rounds", "1"), "keeps 0.5 at once"),
        (("prune", "--kept", "0.5", "--scope", "2:4"), "keeps 0.5 at once: --kept so much, --rounds 1"),
        (("prune", "--kept", "0.5", "--scope", "N:M", "--rounds", "1"), "such as 2:4, found 'N:M'"),
        (("prune", "--kept", "0.334", "--scope", "1:3", "--rounds", "1"), "keeps 0.333333 at once"),
        (("prune", "--kept", "0.5", "--scope", "4:2", "--rounds", "1"), "a pattern N:M keeps at least 1"),
        (("slim", "--kept", "0"), "kept shares above 0"),
        (("lottery", "--kept", "0.5", "--schedule", "gradual"), "exponential"),
        (("lottery", "--kept", "0.5", "--epochs", "1", "--rewind-steps", "1000"), "a step to rewind to below 20"),
    ],
)
def test_what_cannot_be_is_refused(model: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in said(arguments[0], model, *DATA, *arguments[1:], "-o", tmp_path, code=2)
