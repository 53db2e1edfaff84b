"""The commands that prune while they train, from scratch: pruning at initialisation, slimming, lottery tickets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autoprune.certificate import count_onnx
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.pruning.weight_masks import nonzero_weights
from autoprune.recovery.finetune import finetune
from autoprune.service.cli.app import app
from autoprune.service.locks import held
from autoprune.training.masks import full_masks
from autoprune.training.patterns import Pattern, holds
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, digits_network, digits_splits

DATA = ("--data", "digits", "--no-augment", "--batch-size", "32", "--fit-images", "640")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "digits.onnx"
    network = digits_network()
    export_onnx(network.module, path, input_shape=network.input_shape)
    return path


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def found(*arguments: str | Path) -> dict[str, Any]:
    answer = json.loads(run(*arguments, "--json"))
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
    assert "give --soft-masks, --from-scratch" in run(*common, code=2)
    assert "has switched off all channels" in run(*common, "--from-scratch", "--epochs", "1", code=2)
    slim = found(*common, "--from-scratch", "--epochs", "8")
    assert sum(slim["kept"].values()) == 120 - int(0.4 * 120)
    assert slim["strength"] == pytest.approx(0.7 / (40 * 8 * 0.05), rel=0.02)
    assert slim["report"]["pruned"]["top1"] > 0.8
    assert slim["exported"]["cost"] == count_onnx(tmp_path / "model.onnx")
    again = json.loads(run("export", model, "--plan", tmp_path / "plan.json", "--pruned-weights",
                           tmp_path / "weights.safetensors", "-o", tmp_path / "again.onnx", "--json"))  # fmt: skip
    assert again["cost"] == slim["exported"]["cost"]


def test_slim_with_soft_masks_takes_a_trained_file_as_it_is(tmp_path: Path) -> None:
    fit, network = digits_splits().fit, digits_network()
    training = replace(FROM_SCRATCH, epochs=3)
    trained = finetune(network.module, fit.inputs[:640], fit.labels[:640], training, device=CPU).module  # type: ignore[index]
    export_onnx(trained, tmp_path / "trained.onnx", input_shape=network.input_shape)
    options = ("--kept", "0.7", "--epochs", "6", "--learning-rate", "0.05", "--strength", "0.04", "--final-epochs", "0")
    slim = found("slim", tmp_path / "trained.onnx", *DATA, *options, "--soft-masks", "-o", tmp_path)
    assert sum(slim["kept"].values()) == 120 - int(0.3 * 120)
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


@pytest.mark.parametrize("command", ["prune", "slim", "lottery"])
def test_one_command_at_a_time_in_a_folder(model: Path, tmp_path: Path, command: str) -> None:
    with held(tmp_path / ".lock"):
        assert "another command is running there" in run(command, model, *DATA, "--kept", "0.5", "-o", tmp_path, code=2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("prune", "--kept", "0.5", "--epochs", "0", "--unit", "channels"), "--epochs 0 belongs to rounds"),
        (("prune", "--kept", "0.5", "--epochs", "0", "--schedule", "gradual"), "--epochs 0 belongs to rounds"),
        (("prune", "--kept", "1e-4", "--epochs", "0"), "the maximal critical compression"),
        (("prune", "--kept", "0.4", "--scope", "2:4", "--rounds", "1"), "keeps 0.5 at once"),
        (("prune", "--kept", "0.5", "--scope", "2:4"), "keeps 0.5 at once: --kept so much, --rounds 1"),
        (("prune", "--kept", "0.5", "--scope", "4:2", "--rounds", "1"), "a pattern N:M keeps at least 1"),
        (("slim", "--kept", "0"), "kept shares above 0"),
        (("lottery", "--kept", "0.5", "--schedule", "gradual"), "exponential"),
        (("lottery", "--kept", "0.5", "--epochs", "1", "--rewind-steps", "1000"), "a step to rewind to below 20"),
    ],
)
def test_what_cannot_be_is_refused(model: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in run(arguments[0], model, *DATA, *arguments[1:], "-o", tmp_path, code=2)
