"""The audit of dependencies in CI: what fails, and what is said where nobody can be asked."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.components import require_module

SOUND = {"name": "sound", "version": "1", "vulns": []}
SKIPPED = {"name": "odd", "skip_reason": "not found"}
BAD = {
    "name": "bad",
    "version": "1.2",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.3"], "description": "..."}],
}


@pytest.fixture(scope="module")
def audit(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", root / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("dependencies", "accepted", "fails", "said"),
    [
        ([SOUND], {}, False, "1 dependencies, no known vulnerability"),
        ([SOUND, BAD], {}, True, "bad 1.2: PYSEC-1 CVE-1, fixed in 1.3; renew constraints.txt"),
        ([SOUND, BAD], {"CVE-1": "not called"}, False, "accepted: not called"),
        ([SOUND, SKIPPED], {}, False, "!!! NOT AUDITED, since nobody knows them here: odd"),
        ([SKIPPED, BAD], {}, True, "bad 1.2"),
        ([SKIPPED, SKIPPED], {}, False, "!!! NOT AUDITED: no advisories can be reached"),
        (None, {}, False, "!!! NOT AUDITED: no advisories can be reached"),
    ],
)
def test_vulnerabilities_fail_and_silence_is_told(
    audit: ModuleType, dependencies: list[dict[str, Any]] | None, accepted: dict[str, str], fails: bool, said: str
) -> None:
    report = None if dependencies is None else {"dependencies": dependencies, "fixes": []}
    text, failed = audit.verdict(report, accepted)
    assert failed == fails
    assert said in text


def test_without_a_network_it_says_so_loudly_and_goes_on(root: Path, tmp_path: Path) -> None:
    require_module("pip_audit")
    (tmp_path / "constraints.txt").write_text("# a comment\nidna==3.20\n")
    nowhere = "http://127.0.0.1:9"  # nobody listens
    environment = {**os.environ, "HTTPS_PROXY": nowhere, "https_proxy": nowhere, "NO_PROXY": "", "no_proxy": ""}
    command = [sys.executable, root / ".ci" / "audit.py", tmp_path / "constraints.txt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "!!! NOT AUDITED: no advisories" in done.stdout) == (0, True), done.stdout + done.stderr
