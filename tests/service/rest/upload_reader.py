"""A process that reads uploads as the service does, watched from outside: does it die, hang or take much memory?

``python -m tests.service.rest.upload_reader FOLDER`` reads the paths of model files from standard input, one a line,
adds each to a service home in FOLDER, and answers each with a line of JSON.
"""

import contextlib
import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.service.rest.mutations import mutated, sound_files

#: Longest time that one small file may take to be read, on a busy machine.
MOST_S = 180.0


@dataclass(slots=True)
class Readings:
    """What came of reading many files.

    Attributes:
        outcomes: How many were accepted, refused, or something worse.
        peak_mib: Most memory of the reading process.
        slowest_s: Longest time for one file.
        bad: Files that did what no file may do, with what they did.

    """

    outcomes: Counter[str] = field(default_factory=Counter)
    peak_mib: int = 0
    slowest_s: float = 0.0
    bad: list[tuple[Path, str]] = field(default_factory=list)


def read_mutated(folder: Path, *, files: int, seed: int, most_mib: int) -> Readings:
    """Read so many changed files, the same ones for the same seed; the bad ones stay in `folder`."""
    rng, sound, found = random.Random(seed), sound_files(), Readings()  # noqa: S311 - repeatable, no secret
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_reader(folder))
        for number in range(files):
            path = folder / f"mutated-{seed}-{number}.onnx"
            path.write_bytes(mutated(rng.choice(sound), rng))
            answer = _answer(reader, path)
            found.outcomes[answer["outcome"]] += 1
            found.peak_mib = max(found.peak_mib, answer["peak_mib"])
            found.slowest_s = max(found.slowest_s, answer["seconds"])
            if answer["outcome"] not in ("accepted", "refused") or answer["peak_mib"] > most_mib:
                found.bad.append((path, f"{answer['outcome']}, {answer['peak_mib']} MiB: {answer['detail']}"))
            else:
                path.unlink()
            if reader.poll() is not None:
                reader = stack.enter_context(_reader(folder))
    return found


@contextlib.contextmanager
def _reader(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a reading process."""
    command = [sys.executable, "-m", "tests.service.rest.upload_reader", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def _answer(reader: "subprocess.Popen[str]", path: Path) -> dict[str, object]:
    """Let a process read a file; it is ended if it takes too long."""
    assert reader.stdin is not None
    assert reader.stdout is not None
    started = time.monotonic()
    reader.stdin.write(f"{path}\n")
    with selectors.DefaultSelector() as selector:
        selector.register(reader.stdout, selectors.EVENT_READ)
        ready = bool(selector.select(MOST_S))
    line = reader.stdout.readline() if ready else ""
    seconds = time.monotonic() - started
    if line:
        return {**json.loads(line), "seconds": seconds}
    outcome = "died" if ready else "hung"
    reader.kill()
    return {"outcome": outcome, "detail": f"exit code {reader.wait()}", "peak_mib": 0, "seconds": seconds}


def _read(folder: Path) -> None:
    """Be the reading process."""
    from autoprune.errors import AutopruneError
    from autoprune.service.rest.uploads import add_model
    from autoprune.service.settings import Settings
    from autoprune.service.storage.file_store import FileStore
    from autoprune.service.storage.records import Records

    settings = Settings(folder / "home")
    settings.prepare()
    records, store = Records(settings.url, create=True), FileStore(settings.home / "store")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        outcome, detail = "accepted", ""
        try:
            with Path(line.rstrip("\n")).open("rb") as source:
                add_model(settings, records, store, source, "mutated.onnx")
        except AutopruneError as error:
            outcome, detail = "refused", str(error)[:500]
        except BaseException as error:
            outcome, detail = "defect", f"{type(error).__name__}: {error}"[:500]
        status = Path("/proc/self/status").read_text()
        peak = next(int(text.split()[1]) // 1024 for text in status.splitlines() if text.startswith("VmHWM"))
        sys.stdout.write(json.dumps({"outcome": outcome, "detail": detail, "peak_mib": peak}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _read(Path(sys.argv[1]))
