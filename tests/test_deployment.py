"""The container files, which are documentation: linters read them, and what they name is there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import missing, require_module


def run_hadolint(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Check a Dockerfile."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        missing("hadolint", "make install")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_the_dockerfile_has_nothing_to_complain_of(root: Path, tmp_path: Path) -> None:
    found = run_hadolint(root / "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /x && sudo pip install y\n")
    assert run_hadolint(bad).returncode == 1  # the linter does look


def test_the_dockerfile_copies_what_there_is_and_hides_the_rest(root: Path) -> None:
    lines = (root / "Dockerfile").read_text().splitlines()
    copied = {
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    }
    allowed = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((root / name).exists() for name in copied)
    assert lines.index("USER 1000") < next(index for index, line in enumerate(lines) if line.startswith("ENTRYPOINT"))


def test_the_compose_file_keeps_to_the_specification(root: Path) -> None:
    require_module("compose_spec")
    from compose_spec import PyOptions

    options = PyOptions(apply_merge=True)
    text = (root / "compose.yaml").read_text()
    compose = options.from_yaml(text)
    compose.validate()
    assert set(compose.service_names()) == {"api", "worker", "records"}
    with pytest.raises(ValueError, match="helthcheck"):
        options.from_yaml(text.replace("    healthcheck: #", "    helthcheck: #"))
    services = compose.to_dict()["services"]
    assert [services[name].get("init") for name in ("api", "worker")] == [True, True]  # workers leave orphans
    assert "--host 127.0.0.1" in services["records"]["healthcheck"]["test"]  # answered once it is set up


def test_the_password_is_in_a_file_that_is_not_kept(root: Path) -> None:
    names = [line.partition("=")[0] for line in (root / "autoprune.env.example").read_text().splitlines()]
    assert {"POSTGRES_PASSWORD", "AUTOPRUNE_DB"} < set(names)
    for name in ("compose.yaml", "Dockerfile"):
        assert "PASSWORD=" not in (root / name).read_text()
    ignored = subprocess.run(["git", "check-ignore", "-q", "autoprune.env"], cwd=root, check=False)  # noqa: S607
    assert ignored.returncode == 0
