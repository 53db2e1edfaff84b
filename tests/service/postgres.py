"""A real PostgreSQL of its own for the tests, which they may stop and start."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

from tests.components import missing

#: Where Debian's packages put the programs of each version.
_DEBIAN = Path("/usr/lib/postgresql")

#: As root the server refuses to run; then it runs as this user, whom Debian's package makes.
_USER = "postgres"

PASSWORD = "correct-horse"  # noqa: S105 - of a server that only these tests reach

_names = count()


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on a free port of this machine, with a unix socket in its own folder.

    Attributes:
        programs: Folder of ``pg_ctl`` and ``initdb``.
        folder: Everything of this server, and nothing else.
        options: Settings beside ``port``, as on the command line of the server.

    """

    programs: Path
    folder: Path
    port: int
    options: tuple[str, ...]

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database here, as ``AUTOPRUNE_DB`` takes it."""
        return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Return the address of an empty database: a schema, which is made sooner and is as good."""
        name = f"test_{os.getpid()}_{next(_names)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url()}?options=-c%20search_path%3D{name}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = (f"port={self.port}", f"unix_socket_directories={self.folder}", *self.options)
        options = " ".join(f"-c {setting}" for setting in settings)
        self._run("pg_ctl", "start", "-w", "-t", "60", "-o", options, "-l", str(self.folder / "server.log"))

    def stop(self) -> None:
        """End the server at once, as a crash would: nothing is finished, all connections break."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def restart(self) -> None:
        """End the server at once and start it again."""
        self.stop()
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL on this server's data."""
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        user = _USER if os.geteuid() == 0 else None
        with (self.folder / "programs.log").open("a+") as log:
            done = subprocess.run(
                command,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        logs = [path.read_text() for path in sorted(self.folder.glob("*.log"))]
        assert done.returncode == 0, "\n".join([" ".join(command), *logs])


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a new, empty server while the context lasts; with `durable` it writes to the disk as one in earnest does.

    Where PostgreSQL is missing the test is skipped; in CI it fails.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="autoprune-postgres-"))
    options = () if durable else ("fsync=off", "full_page_writes=off")
    server = Postgres(programs, folder, _free_port(), ("listen_addresses=127.0.0.1", *options))
    try:
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, _USER, _USER)
        server._run(
            "initdb",
            *("--username", _USER, "--pwfile", str(folder / "password"), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """Return the folder of the newest PostgreSQL's programs."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    debian = [path.parent for path in _DEBIAN.glob("*/bin/initdb")]
    if not debian:
        missing("PostgreSQL (initdb, pg_ctl)", "apt-get install postgresql")
    return max(debian, key=lambda path: float(path.parent.name))


def _free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
