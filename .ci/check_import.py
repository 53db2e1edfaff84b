"""Import the five packages and the command line from an installed wheel: ``check_import.py FOLDER``."""

import sys
from importlib import import_module
from pathlib import Path

NAMES = ("", ".envs", ".latency_tables", ".search", ".service", ".service.cli.app")


def main() -> None:
    """Import each name and exit with a message where it does not come from the given folder."""
    site = Path(sys.argv[1]).resolve()
    for name in NAMES:
        file = import_module("autoprune" + name).__file__
        if file is None or site not in Path(file).resolve().parents:
            sys.exit(f"autoprune{name} came from {file}, expected it in {site}")
    print(f"{len(NAMES)} modules imported from the wheel")


if __name__ == "__main__":
    main()
