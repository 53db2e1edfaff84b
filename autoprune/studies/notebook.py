"""Figures that took long, kept in a file as they become known, so that a study that was stopped goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = list[float]


class Notebook:
    """Remembers lists of numbers by key, in this process or in a file that only its own writer reads.

    The file begins with a hash of the facts that all figures depend on; with other facts it begins anew. Every figure
    is a line, written at once; a line that a kill cut off is measured again. One process writes at a time.
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
        head = json.dumps({"facts": hashlib.sha256(text.encode()).hexdigest()})
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        whole = lines[1:-1] if lines[:1] == [head] else []  # behind the last line break is what was cut off
        self._figures = dict(json.loads(line) for line in whole)
        path.write_text("\n".join([head, *whole, ""]), encoding="utf-8")

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
