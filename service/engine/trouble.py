"""Trouble that may pass, in the log."""

import logging

from autoprune.service.storage.database import AWAY, reason

_log = logging.getLogger(__name__)


def log_trouble(who: str, error: Exception) -> None:
    """Log why somebody cannot work, who tries again: one line where the database is away, all of it otherwise."""
    if isinstance(error, AWAY):
        _log.warning("%s cannot work, %s; trying again", who, reason(error))
    else:
        _log.error("%s cannot work; trying again", who, exc_info=error)
