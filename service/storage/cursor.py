"""Where a page of a list begins: behind an item, whatever is added meanwhile."""

from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from autoprune.errors import AutopruneError
from autoprune.service.storage.tables import DatasetRow, JobRow, ModelRow

AnyRow = TypeVar("AnyRow", ModelRow, DatasetRow, JobRow)


class CursorError(AutopruneError):
    """A page of a list is to begin behind something that is not in it."""


def behind(session: Session, query: Select[AnyRow], kind: type[AnyRow], after: str | None) -> Select[AnyRow]:
    """Leave out of `query` what was added since the row with the id `after`, and that row; nothing without `after`.

    Raises:
        CursorError: No row has that id.

    """
    if after is None:
        return query
    number = session.scalar(select(kind.number).where(kind.id == after))
    if number is None:
        raise CursorError(f"after: expected the id of the last item of the page before, found {after[:100]!r}")
    return query.where(kind.number < number)
