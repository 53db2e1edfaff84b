"""A line in the log for every request: who asked for what, what was answered, and how long that took."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

REQUEST_ID = "X-Request-ID"

#: Ids that are taken over from a caller, such as a proxy that has a log of its own.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_MOST_CHARACTERS = 500

_log = logging.getLogger(__name__)


class RequestLog:
    """ASGI middleware that gives every request an id, which is answered as ``X-Request-ID``, and logs it.

    Every line that is logged while a request is answered carries its id. Its own line is written before the last byte
    of the answer is sent, and holds the path without the query, which may hold anything.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Log the requests to `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with bound_contextvars(request_id=request_id):
            await self._logged(scope, receive, send)

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it when its answer is complete, or will not be."""
        began, status, told = time.perf_counter(), 500, False

        def tell(**more: object) -> None:
            nonlocal told
            told = True
            key = scope["state"].get("key")
            fields = {
                "method": scope["method"][:_MOST_CHARACTERS],
                "path": scope["path"][:_MOST_CHARACTERS],
                "status": status,
                "ms": round(1000 * (time.perf_counter() - began), 1),
                "key_id": None if key is None else key.id,
            }
            _log.info("request", extra=fields | more)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[REQUEST_ID] = scope["state"]["request_id"]
            elif not message.get("more_body", False):
                tell()
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:  # a defect, answered outside all middleware; or the caller is gone
            if not told:
                tell(complete=False)
