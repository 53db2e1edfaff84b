"""Settings turned into the specs that they make, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from autoprune.errors import AutopruneError

_Document = TypeVar("_Document", bound=BaseModel)


class SpecError(AutopruneError):
    """A job's settings cannot be read.

    Attributes:
        problems: One mapping per wrong setting, with ``where``, ``expected`` and ``found``.

    """

    def __init__(self, problems: Sequence[Mapping[str, str]]) -> None:
        """Describe all wrong settings of one job."""
        self.problems = tuple(dict(problem) for problem in problems)
        super().__init__("; ".join(f"{p['where']}: {p['expected']} (found {p['found']})" for p in self.problems))


def read_as(kind: type[_Document], values: Mapping[str, object]) -> _Document:
    """Return the spec of this kind with these settings; the rest has its defaults.

    Raises:
        SpecError: Settings that do not exist, are of another type or out of range; names all of them.

    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SpecError(problems_of(error.errors(include_url=False))) from error


def problems_of(errors: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    """Turn pydantic's error mappings into where, expected and found, each short enough for a message."""
    return [
        {
            "where": ".".join(map(str, location)) if isinstance(location := error["loc"], tuple) else str(location),
            "expected": str(error["msg"])[:500],
            "found": "nothing" if error["type"] == "missing" else _shortened(error.get("input")),
        }
        for error in errors
    ]


def _shortened(value: object) -> str:
    """Return the start of a value's text in plain ASCII."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
