"""The command line: what it prints, what it refuses, and how quickly it answers."""

import json
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path
from typing import Any

import onnx
import pytest

from autoprune.certificate import count_onnx
from autoprune.costs.budget import Budget
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.groups.channel_group import find_groups
from autoprune.problem import pruning_problem
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.weight_masks import nonzero_weights
from autoprune.service.cli.app import compare, search
from autoprune.service.cli.demo_network import demo_network, train_demo_network
from autoprune.service.cli.spec_values import FINETUNE_FIELDS, spec_values
from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.locks import held
from autoprune.service.results.job_result import JobResult
from autoprune.service.specs.amc_options import AmcOptions
from autoprune.service.specs.finetune_options import FinetuneOptions
from autoprune.service.specs.front_options import FrontOptions
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.pruningnet_options import PruningNetOptions
from autoprune.training.rounds import kept_count
from autoprune.training.weight_scores import weights_of
from tests.service.commands import run

AMC = ("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--policy", "amc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    network, trained, _ = train_demo_network(epochs=4)
    export_onnx(trained, path, input_shape=network.input_shape)
    return path


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'onnx', 'numpy', 'fastapi', 'plotly', 'pydantic'} & set(sys.modules)"
    code = f"""import sys
from autoprune.service.cli.app import app
app(['--help'], standalone_mode=False)
print('heavy:', sorted({heavy}))"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5  # 0.3 s on a quiet machine
    assert "heavy: []" in done.stdout
    for command in (
        "inspect", "search", "compare", "study", "what-if", "finetune", "prune", "slim", "lottery", "export", "demo",
        "serve", "device", "submit", "watch", "get", "jobs", "cancel",
    ):  # fmt: skip
        assert command in done.stdout


def test_criteria_are_listed() -> None:
    listed = json.loads(run("criteria", "--json")[0])
    assert listed["format"] == "autoprune-criteria/1"
    assert {"name", "meaning", "granularities", "needs", "paper", "arxiv", "one_scale"} == set(listed["criteria"][0])
    table = run("criteria")[0]
    for criterion in listed["criteria"]:
        assert criterion["name"] in table
        assert (criterion["arxiv"] or "-") in table


def test_version() -> None:
    stdout, _ = run("--version")
    assert stdout.startswith("autoprune 0.")


def test_inspect_lists_groups_and_the_smallest_reachable_cost(model: Path) -> None:
    stdout, stderr = run("inspect", model, "--budget", "macs=50%")
    assert stderr == ""
    for expected in ("stem.conv", "residual stream: --include-residual", "frozen: network output", "4 of 6 groups",
                     "523,488", "smallest reachable", "can be reached: macs at most 261,744"):  # fmt: skip
        assert expected in " ".join(stdout.split()), expected


def test_inspect_json(model: Path) -> None:
    stdout, stderr = run("inspect", model, "--json", "--include-residual", "--round-to", "8", "--budget", "params=60%")
    found = json.loads(stdout)
    assert stderr == ""
    assert found["cost"]["macs"] == 523_488
    assert found["decision_groups"] == [group["name"] for group in found["groups"] if group["frozen"] is None]
    assert len(found["decision_groups"]) == 5
    assert found["budget"]["feasible"] is True
    assert found["smallest"]["macs"] < found["cost"]["macs"]
    assert sum(group["units"] for group in found["groups"]) == 12 + 16 + 24 + 32 + 48 + 10


def test_inspect_says_that_a_budget_is_out_of_reach(model: Path) -> None:
    stdout, stderr = run("inspect", model, "--json", "--budget", "macs=1%", code=2)
    verdict = json.loads(stdout)["budget"]
    assert verdict["feasible"] is False
    assert "smallest reachable value" in verdict["reason"]
    assert stderr == f"error: {verdict['reason']}\n"


def test_inspect_takes_an_architecture_without_weights() -> None:
    stdout, _ = run("inspect", "resnet20_cifar", "--json")
    assert json.loads(stdout)["cost"]["macs"] == 40_551_040


@pytest.fixture(scope="module")
def plan(model: Path) -> Path:
    """Return a plan that halves the MACs of the model."""
    problem = pruning_problem(load_network(model), Budget.parse("macs=50%"))
    path = model.with_name("plan.json")
    problem.plan(problem.project(PruningPolicy.uniform(0.5, len(problem.groups)))).save(path)
    return path


def test_export_writes_a_checked_file(model: Path, plan: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    stdout, _ = run("export", model, "--plan", plan, "-o", target, "--opset", "15", "--json")
    found = json.loads(stdout)
    assert found["cost"] == count_onnx(target)
    assert found["cost"]["macs"] <= 523_488 // 2
    assert found["parity_error"] < 1e-5
    assert onnx.load(target).opset_import[0].version == 15
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    stdout, _ = run("export", model, "--plan", plan, "-o", target)
    assert "differs from PyTorch by at most" in stdout


def test_export_of_int8_is_calibrated_and_scored(model: Path, plan: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    common = ("export", model, "--plan", plan, "-o", target, "--int8")
    found = json.loads(run(*common, "--data", "digits", "--json")[0])
    int8 = found["int8"]
    assert int8["onnx"] == str(tmp_path / "small.int8.onnx")
    assert int8["file_bytes"] == (tmp_path / "small.int8.onnx").stat().st_size
    assert int8["calibration_images"] == 256
    assert int8["search"]["top1"] == pytest.approx(int8["search_fp32"]["top1"], abs=0.05)
    assert int8["search"]["images"] == int8["search_fp32"]["images"] > 200
    stdout, _ = run(*common, "--data", "digits", "--fit-images", "40", "--search-images", "50")
    assert "50 search images; calibrated on 40 fit images" in stdout
    assert "--int8 and --data belong together" in run(*common, code=2)[1]


def test_export_refuses_a_plan_for_another_network(plan: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    network = demo_network(seed=1)
    export_onnx(network.module, other, input_shape=network.input_shape)
    _, stderr = run("export", other, "--plan", plan, "-o", tmp_path / "small.onnx", code=2)
    assert "made for another network" in stderr
    assert not (tmp_path / "small.onnx").exists()


def test_finetune_improves_a_pruned_network_and_keeps_its_cost(model: Path, plan: Path, tmp_path: Path) -> None:
    common = ("finetune", model, "--plan", plan, "--data", "digits", "--learning-rate", "0.05")
    stdout, _ = run(*common, "--epochs", "2", "-o", tmp_path, "--json")
    found = json.loads(stdout)
    accuracy = {name: scores["top1"] for name, scores in found["report"].items()}
    assert accuracy["unpruned"] >= accuracy["fine-tuned"] - 0.03
    assert accuracy["fine-tuned"] > max(0.8, accuracy["pruned"])
    assert found["exported"]["cost"] == count_onnx(tmp_path / "model.onnx")
    again, _ = run("export", model, "--plan", tmp_path / "plan.json", "--pruned-weights",
                   tmp_path / "weights.safetensors", "-o", tmp_path / "again.onnx", "--json")  # fmt: skip
    assert json.loads(again)["cost"] == found["exported"]["cost"]
    table, _ = run(*common, "--epochs", "1", "-o", tmp_path)
    assert "fine-tuned" in table


def test_a_finetune_that_is_killed_goes_on(model: Path, plan: Path, tmp_path: Path) -> None:
    command = ["finetune", model, "--plan", plan, "--data", "digits", "--epochs", "30", "-o", tmp_path / "killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "autoprune.service.cli.app", *map(str, command)], stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / "killed" / ".finetune.safetensors"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.onnx").exists()
    _, stderr = run(*command)
    assert "fine-tune 1/" not in stderr
    assert not checkpoint.exists()
    run(*command[:-1], tmp_path / "whole")
    for name in ("weights.safetensors", "model.onnx"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_one_finetune_at_a_time_in_a_folder(model: Path, plan: Path, tmp_path: Path) -> None:
    with held(tmp_path / ".lock"):
        _, stderr = run("finetune", model, "--plan", plan, "--data", "digits", "-o", tmp_path, code=2)
    assert "another command is running there" in stderr


def prune(model: Path, folder: Path, *options: str) -> dict[str, Any]:
    common = ("prune", model, "--data", "digits", "--kept", "0.3", "--learning-rate", "0.02", "-o", folder, "--json")
    stdout, _ = run(*common, *options)
    found = json.loads(stdout)
    assert isinstance(found, dict)
    assert found["report"]["pruned"]["top1"] > found["report"]["unpruned"]["top1"] - 0.1
    assert found["exported"]["cost"] == count_onnx(folder / "model.onnx")
    return found


@pytest.mark.parametrize("schedule", ["exponential", "gradual"])
def test_prune_keeps_the_share_of_weights_that_is_asked_for(model: Path, schedule: str, tmp_path: Path) -> None:
    found = prune(model, tmp_path, "--schedule", schedule, "--rounds", "4", "--scope", "layer")
    network = load_network(tmp_path / "model.onnx")
    nonzero = nonzero_weights(network)
    full = {name: weight.numel() for name, weight in weights_of(load_network(model)).items()}
    assert sum(nonzero.values()) == sum(found["kept"].values()) == sum(kept_count(size, 0.3) for size in full.values())
    if schedule == "exponential":
        before = (tmp_path / "model.onnx").read_bytes()
        again, stderr = run("prune", model, "--data", "digits", "--kept", "0.3", "--learning-rate", "0.02", "--rounds",
                            "4", "--scope", "layer", "-o", tmp_path)  # fmt: skip
        assert "round" not in stderr  # nothing is trained again
        assert (tmp_path / "model.onnx").read_bytes() == before
        assert "weights kept" in again


@pytest.mark.parametrize(("unit", "criterion"), [("weights", "taylor"), ("channels", "fpgm")])
def test_prune_takes_any_criterion_of_its_unit(model: Path, unit: str, criterion: str, tmp_path: Path) -> None:
    options = ("--unit", unit, "--rounds", "2", "--kept", "0.8")
    found = prune(model, tmp_path / "chosen", *options, "--criterion", criterion)
    assert found["criterion"] == criterion
    usual = prune(model, tmp_path / "usual", *options)
    assert usual["criterion"] in ("l1", "l2")
    written = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("chosen", "usual")]
    assert written[0] != written[1]


def test_prune_removes_channels_and_leaves_a_plan(model: Path, tmp_path: Path) -> None:
    found = prune(model, tmp_path, "--unit", "channels", "--kept", "0.7", "--rounds", "3")
    total = sum(len(group) for group in find_groups(load_network(model)).prunable())
    assert sum(found["kept"].values()) == kept_count(total, 0.7)
    again, _ = run("export", model, "--plan", tmp_path / "plan.json", "--pruned-weights",
                   tmp_path / "weights.safetensors", "-o", tmp_path / "again.onnx", "--json")  # fmt: skip
    assert json.loads(again)["cost"] == found["exported"]["cost"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("inspect", "m.onnx", "--round-to", "x"), "'--round-to': expected a whole number (found 'x')"),
        (("slim", "m.onnx", "--data", "digits", "--final-epochs", "-1"), "expected at least 0 (found '-1')"),
        (("study", "oracle", "m.onnx", "--channels", "x"), "'--channels': expected a whole number (found 'x')"),
    ],
)
def test_options_that_cannot_be_read_are_described_in_our_words(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in run(*arguments, code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("prune", "{model}", "--data", "digits", "--kept", "0", "-o", "{out}"), "kept shares above 0"),
        (("prune", "{model}", "--data", "digits", "--kept", "0.5", "--schedule", "cubic", "-o", "{out}"), "gradual"),
        (("prune", "{model}", "--data", "digits", "--kept", "0.5", "--tolerance", "1", "-o", "{out}"),
         "belong to --unit channels"),
        (("prune", "{model}", "--data", "digits", "--kept", "0.5", "--unit", "channels", "--scope", "layer", "-o",
          "{out}"), "belong to --unit weights"),
        (("prune", "{model}", "--data", "digits", "--kept", "0.9999", "--unit", "channels", "-o", "{out}"),
         "none would go"),
        (("prune", "{model}", "--data", "digits", "--kept", "0.5", "--criterion", "fpgm", "-o", "{out}"),
         "unknown weight criterion"),
        (("inspect", "missing.onnx"), "missing.onnx"),
        (("inspect", "resnet56"), "resnet56_cifar"),
        (("inspect", "{model}", "--budget", "macs=0"), "limit above 0"),
        (("inspect", "{model}", "--budget", "macs=200%"), "less than 100%"),
        (("inspect", "{model}", "--budget", "watts=3"), "unknown budget quantity"),
        (("inspect", "{model}", "--round-to", "0"), "--round-to"),
        (("inspect", "{model}", "--max-ratio", "1"), "--max-ratio"),
        (("inspect", "resnet20"), "Did you mean 'resnet20_cifar'?"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--policy", "uniform,exact"),
         "expected one policy each time"),
        (("inspect", "{model}", "--weights", "w.safetensors"), "NAME --weights FILE"),
        (("inspect", "{model}", "--input-shape", "big"), "channels,height,width"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--policy", "magic"), "magic"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--evaluations", "0"), "evaluations"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=1%", "-o", "{out}"), "smallest reachable value"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--cluster", "tcp://far:8786"), "tls://"),
        (("compare", "{model}", "--data", "digits", "--budget", "macs=50%", "--cluster", "here"), "tcp://host:port"),
        (("search", "{model}", "--data", "nowhere", "--budget", "macs=50%", "-o", "{out}"), "nowhere"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "-o", "{model}"), "cannot write there"),
        ((*AMC, "--amc-reward", "accuracy"), "amc.reward"),
        ((*AMC, "--amc-parallel-episodes", "17"), "expected at most 16"),
        ((*AMC, "--amc-experience"), "needs a policy before it"),
        ((*AMC, "--amc-agent", "nowhere.safetensors", "-o", "{out}"), "agent.safetensors of an earlier amc search"),
        ((*AMC, "--amc-agent", "{model}", "-o", "{out}"), "agent.safetensors of an earlier amc search"),
        (("compare", "{model}", "--data", "digits", "--budget", "macs=50%", "--seeds", "0"), "expected at least 1"),
        (("compare", "{model}", "--data", "digits", "--budget", "macs=50%", "--evaluations", "2", "-o", "{out}"),
         "allow more"),
        (("serve", "--host", "0.0.0.0"), "loopback"),  # noqa: S104 - it is refused
        (("serve", "--log-level", "loud"), "--log-level"),
    ],
)  # fmt: skip
def test_user_errors_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], expected: str, model: Path, tmp_path: Path
) -> None:
    filled = [text.format(model=model, out=tmp_path / "run") for text in arguments]
    stdout, stderr = run(*filled, code=2)
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert expected in lines[0]
    assert "Traceback" not in stderr


def test_a_wrong_option_is_a_usage_error() -> None:
    _, stderr = run("inspect", "x.onnx", "--colour", "blue", code=2)
    assert "--colour" in stderr


def test_defaults_are_those_of_a_job() -> None:
    defaults = {field: info.default for field, info in JobSpec.model_fields.items()}
    tuning = {field: info.default for field, info in FinetuneOptions.model_fields.items()}
    named = dict(zip(reversed(search.__code__.co_varnames[: search.__code__.co_argcount]),
                     reversed(search.__defaults__ or ()), strict=False))  # fmt: skip
    for name, default in named.items():
        if name in tuning:
            assert default == tuning[name], name
        elif name in defaults:
            assert default == (list(defaults[name]) if name == "policies" else defaults[name]), name
    assert set(FINETUNE_FIELDS) == set(tuning)
    assert set(defaults) - {"amc", "front", "pruningnet", "finetune", "model", "dataset", "budget"} <= set(named)
    for prefix, settings in (("amc_", AmcOptions), ("pruningnet_", PruningNetOptions)):
        own = {name.removeprefix(prefix): default for name, default in named.items() if name.startswith(prefix)}
        assert set(own) == set(settings.model_fields)
        assert settings(**{name: default for name, default in own.items() if default is not None}) == settings()
    front = {name.removeprefix("front_"): default for name, default in named.items() if name.startswith("front_")}
    assert front == dict.fromkeys(FrontOptions.model_fields)  # no front unless its lower end is named


def test_compare_has_the_options_of_search_and_the_defaults_of_a_comparison() -> None:
    theirs, own = signature(search).parameters, signature(compare).parameters
    defaults = {field: info.default for field, info in ComparisonSpec.model_fields.items()}
    assert set(own) - set(theirs) == {"seeds"}
    for name in own:
        if name in ("policies", "seed", "seeds"):
            default = own[name].default
            assert (tuple(default) if name == "policies" else default) == defaults[name]
        else:
            assert own[name] == theirs[name]


def test_weights_of_an_architecture_may_be_named_either_way() -> None:
    one = spec_values({"model": "resnet20_cifar", "weights": Path("w.safetensors"), "input_shape": "3,32,32"})
    other = spec_values({"model": "w.safetensors", "architecture": "resnet20_cifar", "input_shape": "3x32x32"})
    assert one == other == {"model": "w.safetensors", "architecture": "resnet20_cifar", "input_shape": (3, 32, 32)}


def test_search_prints_one_json_document_and_goes_on_after_ctrl_c(model: Path, tmp_path: Path) -> None:
    command = ["search", model, "--data", "digits", "--fit-images", "400", "--budget", "macs=50%",
               "--evaluations", "20", "-o", tmp_path / "run", "--json"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "autoprune.service.cli.app", *map(str, command), "--finetune-epochs", "2000"],
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "run" / "journal.sqlite").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"run the same command again" in stderr
    assert b"Traceback" not in stderr
    stdout, stderr_text = run(*command)
    result = JobResult.model_validate_json(stdout)
    assert "note:" in stderr_text  # other settings than the first time
    assert [outcome.policy for outcome in result.outcomes] == ["uniform", "sensitivity", "exact"]
    assert all(outcome.cost["macs"] <= result.limits["macs"] for outcome in result.outcomes)
    assert JobResult.model_validate_json((tmp_path / "run" / "result.json").read_text()) == result
    _, refused = run(*command, "--seed", "7", code=2)
    assert "holds the results of a job with other settings (seed)" in refused


def test_one_search_at_a_time_in_a_folder(model: Path, tmp_path: Path) -> None:
    with held(tmp_path / ".lock"):
        _, stderr = run("search", model, "--data", "digits", "--budget", "macs=50%", "-o", tmp_path, code=2)
    assert "another command is running there" in stderr


def test_compare_prints_a_table_what_it_means_and_where_the_files_lie(model: Path, tmp_path: Path) -> None:
    command = ["compare", model, "--data", "digits", "--budget", "macs=50%", "--policy", "exact", "--seeds", "2",
               "--evaluations", "7", "--fit-images", "300", "--no-refit", "-o", tmp_path]  # fmt: skip
    stdout, stderr = run(*command)
    text = " ".join(stdout.split())
    for expected in ("mean ± half of the 95% interval over seeds", "sensitivity", "over 2 seeds", "draw nothing",
                     "At equal time", "report.html", "comparison.csv"):  # fmt: skip
        assert expected in text, expected
    assert "search, exact, seed 1 7/7" in stderr
    again, _ = run(*command, "--json")
    result = ComparisonResult.model_validate_json(again)
    assert (result.computed, result.seeds) == (0, [0, 1])
    _, refused = run(*command, "--seeds", "3", code=2)
    assert "holds the results of a job with other settings (seeds)" in refused
    _, refused = run("search", *command[1:8], "--evaluations", "7", "-o", tmp_path, code=2)
    assert "holds the results of a job with other settings" in refused
