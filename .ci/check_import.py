"""Import the five packages from an installed wheel, and make records with it: ``check_import.py FOLDER``."""

import sys
import tempfile
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
    with tempfile.TemporaryDirectory() as home:  # by the revisions, which nothing imports
        records = import_module("autoprune.service.storage.records").Records(f"sqlite:///{home}/a.sqlite", create=True)
        records.close()
    print(f"{len(NAMES)} modules imported from the wheel, and records made")


if __name__ == "__main__":
    main()
