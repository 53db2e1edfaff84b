"""The runner of a device kit: one file that holds all a device needs besides Python, numpy and onnxruntime."""

import zipfile
from pathlib import Path

import autoprune.errors
import autoprune.latency_tables

RUNNER = "measure.pyz"
WORK = "work.json"
NETWORKS = "networks"

_MAIN = """import sys

if sys.version_info < (3, 11):
    sys.exit(f"error: this kit needs Python 3.11 or newer, this is {sys.version.split()[0]}")
try:
    import numpy, onnxruntime
except ImportError as error:
    sys.exit(f"error: {error}; install what is missing: python -m pip install numpy onnxruntime")

from autoprune.latency_tables.runner import main

sys.exit(main())
"""

#: Every archive member has this date, so that equal kits are equal files.
_DATE = (2020, 1, 1, 0, 0, 0)


def write_runner(path: Path, version: str) -> None:
    """Write the runner, a zip file that Python runs: ``python measure.pyz``.

    It holds this package, the error types, and an ``autoprune`` of this `version` that has nothing but them.
    """
    package = Path(autoprune.latency_tables.__file__).resolve().parent
    init = f'"""What a device needs of autoprune."""\n\n__version__ = "{version}"\n'
    members = {
        "__main__.py": _MAIN,
        "autoprune/__init__.py": init,
        "autoprune/errors.py": Path(autoprune.errors.__file__).read_text(encoding="utf-8"),
    }
    for source in sorted(package.glob("*.py")):
        members[f"autoprune/latency_tables/{source.name}"] = source.read_text(encoding="utf-8")
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                entry = zipfile.ZipInfo(name, _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text)
    path.chmod(0o755)
