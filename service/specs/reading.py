"""Settings turned into the specs that they make, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from autoprune.errors import AutopruneError
from autoprune.service.specs.field_problems import problems_of

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
        raise SpecError(problems_of(error.errors(include_url=False), kind)) from error
