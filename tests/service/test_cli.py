"""The command line: what it prints, what it refuses, and how quickly it answers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.formats.onnx_export import export_onnx
from autoprune.service import _cli_options
from autoprune.service.cli import app, search
from autoprune.service.demo_network import demo_network
from autoprune.service.spec import FinetuneOptions, JobSpec


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    network = demo_network()
    export_onnx(network.module, path, input_shape=network.input_shape)
    return path


def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Run a command in this process; return what it wrote on stdout and stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from autoprune.service.cli import app; app(['--help'], standalone_mode=False); " \
           "print('heavy:', sorted({'torch', 'onnx', 'numpy', 'fastapi', 'plotly', 'pydantic'} & set(sys.modules)))"  # fmt: skip
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5  # 0.3 s on a quiet machine
    assert "heavy: []" in done.stdout
    for command in ("inspect", "search", "finetune", "export", "demo", "serve"):
        assert command in done.stdout


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("inspect", "missing.onnx"), "missing.onnx"),
        (("inspect", "resnet56"), "Did you mean 'resnet56_cifar'?"),
        (("inspect", "{model}", "--budget", "macs=0"), "limit above 0"),
        (("inspect", "{model}", "--budget", "macs=200%"), "less than 100%"),
        (("inspect", "{model}", "--budget", "watts=3"), "unknown budget quantity"),
        (("inspect", "{model}", "--round-to", "0"), "--round-to"),
        (("inspect", "{model}", "--max-ratio", "1"), "--max-ratio"),
        (("inspect", "{model}", "--weights", "w.safetensors"), "NAME --weights FILE"),
        (("inspect", "{model}", "--input-shape", "big"), "channels,height,width"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--policy", "magic"), "magic"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "--evaluations", "0"), "evaluations"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=1%", "-o", "{out}"), "smallest reachable value"),
        (("search", "{model}", "--data", "nowhere", "--budget", "macs=50%", "-o", "{out}"), "nowhere"),
        (("search", "{model}", "--data", "digits", "--budget", "macs=50%", "-o", "{model}"), "cannot write there"),
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
    assert set(_cli_options.FINETUNE_FIELDS) == set(tuning)
    assert set(defaults) - {"finetune", "model", "dataset", "budget"} <= set(named)


def test_weights_of_an_architecture_may_be_named_either_way() -> None:
    one = _cli_options.spec_values(
        {"model": "resnet20_cifar", "weights": Path("w.safetensors"), "input_shape": "3,32,32"}
    )
    other = _cli_options.spec_values(
        {"model": "w.safetensors", "architecture": "resnet20_cifar", "input_shape": "3x32x32"}
    )
    assert one == other == {"model": "w.safetensors", "architecture": "resnet20_cifar", "input_shape": (3, 32, 32)}
