"""Trouble that may pass, in the log."""

import logging

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from autoprune.service.storage.database import reason

_log = logging.getLogger(__name__)


def log_trouble(who: str, error: SQLAlchemyError | OSError) -> None:
    """Log why somebody cannot work, who tries again: one line where the database is away, all of it otherwise."""
    if isinstance(error, (OperationalError, InterfaceError)):
        _log.warning("%s cannot work, %s; trying again", who, reason(error))
    else:
        _log.error("%s cannot work; trying again", who, exc_info=error)
