"""The layout of docs/adr/0000: five folders, one package, one direction, a light import."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

import autoprune
from tests.components import require_module

LINKED = ("envs", "latency_tables", "search", "service")

# Run from elsewhere: imports every module, prints where each came from, and which bare names are there.
IMPORT_EVERYTHING = f"""
import importlib, json, pkgutil, sys
import autoprune

names = [m.name for m in pkgutil.walk_packages(autoprune.__path__, "autoprune.") if not m.name.endswith("__main__")]
files = {{name: importlib.import_module(name).__file__ for name in names}}
print(json.dumps({{"files": files, "bare": sorted(set({LINKED!r}) & set(sys.modules))}}))
"""

IMPORT_LIGHT = """
import time
start = time.perf_counter()
import autoprune
took_s = time.perf_counter() - start
import json, sys
print(json.dumps({"took_s": took_s, "modules": sorted(sys.modules)}))
"""


def run_python(code: str, folder: Path) -> dict[str, object]:
    """Run `code` in a new interpreter started in `folder` and return the JSON it prints last."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def ruff(root: Path, code: str, filename: str) -> str:
    """Return what ruff says about imports in `code`, were it in the file `filename` of the checkout."""
    require_module("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select=TID", "--output-format=concise"]
    done = subprocess.run(
        [*command, "--stdin-filename", filename, "-"], cwd=root, input=code, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.timing
def test_import_is_light(tmp_path: Path) -> None:
    runs = [run_python(IMPORT_LIGHT, tmp_path) for _ in range(3)]
    modules = runs[0]["modules"]
    assert isinstance(modules, list)
    assert not {"torch", "numpy", "onnx", "scipy", "sklearn", "sqlalchemy", "fastapi"} & set(modules)
    assert min(float(str(run["took_s"])) for run in runs) < 0.2


def test_every_module_is_imported_as_autoprune(root: Path, tmp_path: Path) -> None:
    answer = run_python(IMPORT_EVERYTHING, tmp_path)
    assert answer["bare"] == []
    files = answer["files"]
    assert isinstance(files, dict)
    assert {f"autoprune.{name}" for name in LINKED} < set(files)
    assert all(Path(file).resolve().is_relative_to(root.resolve()) for file in files.values())


@pytest.mark.parametrize("name", LINKED)
def test_links_are_relative(root: Path, name: str) -> None:
    link = root / "autoprune" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"
    assert link.resolve() == (root / name).resolve()


def test_nothing_else_is_linked(root: Path) -> None:
    assert {path.name for path in (root / "autoprune").rglob("*") if path.is_symlink()} == set(LINKED)


def test_the_wheel_gets_every_folder_with_code(root: Path) -> None:
    def package(path: Path) -> str:
        parts = path.parent.relative_to(root).parts
        return ".".join(parts if parts[0] == "autoprune" else ("autoprune", *parts))

    found = set(find_packages(str(root), include=["autoprune*"]))
    assert found == {package(path) for top in ("autoprune", *LINKED) for path in (root / top).rglob("*.py")}


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("line", ["import {}", "from {} import x", "import {}.x", "from {}.x import y"])
def test_bare_imports_are_refused(root: Path, name: str, line: str) -> None:
    code = line.format(name) + "\n"
    for filename in ("service/some.py", "autoprune/some.py", "tests/test_some.py"):
        assert f"TID251 `{name}" in ruff(root, code, filename)
    assert "TID251" not in ruff(root, line.format(f"autoprune.{name}") + "\n", "service/some.py")


def test_relative_imports_are_refused(root: Path) -> None:
    assert "TID252" in ruff(root, "from . import x\n", "service/some.py")


def test_each_file_is_checked_once(root: Path) -> None:
    require_module("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [Path(line) for line in shown if line.endswith(".py")]
    assert {root / top / "__init__.py" for top in ("autoprune", *LINKED)} <= set(files)
    assert len({file.resolve() for file in files}) == len(files)


def test_public_names_are_what_type_checkers_see(root: Path) -> None:
    body = ast.parse((root / "autoprune" / "__init__.py").read_text()).body
    guarded = next(node for node in body if isinstance(node, ast.If))
    seen = {
        alias.name: statement.module
        for statement in guarded.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == autoprune._DEFINED_IN
    assert sorted([*seen, "__version__"]) == sorted(autoprune.__all__)


@pytest.mark.parametrize("name", autoprune.__all__)
def test_public_names_are_there(name: str) -> None:
    value = getattr(autoprune, name)
    assert name == "__version__" or value.__module__ == autoprune._DEFINED_IN[name]
    assert name in dir(autoprune)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'autoprune' has no attribute 'prun'"):
        autoprune.prun  # noqa: B018 - the access is what is tested
