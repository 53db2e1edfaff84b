"""Figures that took long, kept in a file as they become known, so that a study that was stopped goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = list[float]


class Notebook:
    """Remembers lists of numbers by key, in this process or in a file that only its own writer reads.

    The file begins with a hash of the facts that all figures depend on. A file of other facts is kept beside it, by the
    name of its hash, and taken up again with its facts. Every figure is a line, written at once; a line that a kill cut
    off is measured again, and what stands before it is never written anew. One process writes at a time.
    """

    def __init__(self, path: Path | None = None, facts: Mapping[str, object] | None = None) -> None:
        """Open the notebook.

        Args:
            path: Its file, in a folder that exists; None to remember in this process alone.
            facts: All that the figures depend on besides their keys, JSON-ready.

        """
        self._path = path
        self._figures: dict[str, Figures] = {}
        if path is None:
            return
        text = json.dumps(facts, sort_keys=True, default=str)
        head = _head(hashlib.sha256(text.encode()).hexdigest())
        _take_up(path, head)
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]  # behind the last line break is what was cut off
        os.truncate(path, len(whole))
        self._figures = dict(json.loads(line) for line in whole.decode().split("\n")[1:-1])

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._figures)

    def get(self, key: Sequence[Any], measure: Callable[[], Figures]) -> Figures:
        """Return the figures of a key, a list that JSON can hold, measured where they are not known."""
        name = json.dumps(key)
        if name not in self._figures:
            self._figures[name] = measure()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps([name, self._figures[name]]) + "\n")
        return self._figures[name]


def _head(facts: str) -> str:
    """Return the first line of a file."""
    return json.dumps({"facts": facts}) + "\n"


def _take_up(path: Path, head: str) -> None:
    """Put the file with this first line in place, an older or a new one; one with another is kept aside."""
    found = ""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as stream:
            found = stream.readline()
    if found == head:
        return
    if found.endswith("\n"):  # else it was cut off before its first figure
        os.replace(path, _aside(path, found))
    if _aside(path, head).exists():
        os.replace(_aside(path, head), path)
    else:
        path.write_text(head, encoding="utf-8")


def _aside(path: Path, head: str) -> Path:
    """Return where the file with this first line is kept while another is in place."""
    return path.with_name(f"{path.name}.{hashlib.sha256(head.encode()).hexdigest()[:12]}")
