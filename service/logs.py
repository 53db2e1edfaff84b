"""What the service and its workers write to stderr: a JSON document a line, or words where somebody watches.

Everybody logs by :mod:`logging`; fields of a line are its `extra`: ``_log.info("job", extra={"job_id": job_id})``.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = ("debug", "info", "warning", "error")

#: Libraries whose information is many lines that say little to who runs a service; their warnings are written.
_TALKATIVE = ("alembic",)

#: What a secret's name ends in: ``access_token``, ``PGPASSWORD``. A pattern that began with any letters would be slow.
_NAME = r"(?:pass(?:word|wd|phrase)|token|secret|api[_-]?key)"

#: Secrets, wherever they stand: tokens of API keys, passwords in addresses, credentials in headers, and what is called
#: one, in quotes (those of JSON within JSON, too: it stays JSON) or without. Too much is hidden rather than too little.
_SECRETS = (
    (re.compile(r"(autoprune_key_[0-9a-f]{12}_)[A-Za-z0-9_-]{20,}"), r"\1***"),
    (re.compile(r"(://[^\s/:@]*:)[^\s@]*@"), r"\1***@"),
    (re.compile(r"(?i)(\bauthorization\W{1,8}(?:basic|bearer)\s+)[^\s\"',]+"), r"\1***"),
    (re.compile(rf"(?is)({_NAME}(?:\\*[\"'])?\s*[=:]\s*b?(\\*[\"']))(?![\s,}}\]]).*?(?:(?<!\\)(?=\2)|$)"), r"\1***"),
    (re.compile(rf"(?i)({_NAME}\s*[=:]\s*)(?:\\u[0-9a-f]{{4}}|[^\s&\"'\\,;])+"), r"\1***"),
)

_FIRST = ("timestamp", "level", "logger", "event")
_OF_OTHERS = ("asctime", "color_message", "message")


@contextlib.contextmanager
def written(level: str, stream: TextIO | None = None) -> Iterator[None]:
    """Write what is logged, from `level` on, to `stream` (stderr) while the context lasts, warnings of Python included.

    No line holds a secret: see :func:`redacted`.
    """
    target, root = stream or sys.stderr, logging.getLogger()
    handler, before = logging.StreamHandler(target), root.level
    handler.setFormatter(_Formatter(readable=target.isatty()))
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE if level != "debug" else ():
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before)
        root.removeHandler(handler)


def redacted(text: str) -> str:
    """Return `text` without tokens of API keys, passwords in addresses, and credentials."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """One line for a record: JSON, or where it is `readable`, coloured words."""

    def __init__(self, *, readable: bool) -> None:
        shared: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper("iso", utc=True),
        ]
        as_text: list[Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
        if readable:  # other formats of tracebacks show variables, secrets among them
            as_text = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        super().__init__(processors=[self.remove_processors_meta, _ordered, *as_text], foreign_pre_chain=shared)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return redacted(super().format(record))


def _ordered(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Let the fields of all lines come first, and leave out what other formatters left in the record."""
    fields = {name: value for name, value in event.items() if name not in _OF_OTHERS}
    return {name: fields.pop(name) for name in _FIRST if name in fields} | fields
