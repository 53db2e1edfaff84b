"""Check that a wheel holds every source file of the five packages, as a real file: ``check_wheel.py WHEEL``."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

LINKED = ("envs", "latency_tables", "search", "service")


def expected_files() -> set[str]:
    """Return the wheel paths of all files in the five folders that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "autoprune", *LINKED]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    paths = [Path(line) for line in listed.splitlines()]
    files = [path for path in paths if path.is_file()]
    return {(path if path.parts[0] == "autoprune" else "autoprune" / path).as_posix() for path in files}


def main() -> None:
    """Compare the wheel with the checkout; exit with the differences, if any."""
    with ZipFile(sys.argv[1]) as wheel:
        found = {name for name in wheel.namelist() if name.startswith("autoprune/")}
    expected = expected_files()
    if found != expected:
        missing, stray = sorted(expected - found), sorted(found - expected)
        sys.exit(f"the wheel lacks {missing} and should not hold {stray}; see [tool.setuptools] in pyproject.toml")
    print(f"{len(found)} files, as in the checkout")


if __name__ == "__main__":
    main()
