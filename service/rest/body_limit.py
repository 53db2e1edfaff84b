"""Requests are cut off while they arrive, before they fill memory or disk."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoprune.service.rest.problems import problem_response

#: Largest request that is not an upload.
MAX_DOCUMENT_BYTES = 2**20

#: Where programs ask; elsewhere people look at a browser.
REST = "/v1/"

#: Form fields and boundaries around an uploaded file.
FORM_OVERHEAD_BYTES = 2**16

#: How long, and how much, a refused upload is still read and thrown away, so that its sender gets to read the answer.
DRAIN_S = 10.0
DRAIN_BYTES = 2**28


class BodyLimit:
    """ASGI middleware that answers 413 to bodies larger than allowed, announced or not: a problem, or a page."""

    def __init__(self, app: ASGIApp, uploads: Mapping[str, int], page: Callable[[str], Response]) -> None:
        """Let paths that match one of `uploads` have files of so many bytes, others :data:`MAX_DOCUMENT_BYTES`.

        What is refused outside :data:`REST` is answered with a `page` that says why.
        """
        self._app, self._page = app, page
        self._limits = [(re.compile(path), most + FORM_OVERHEAD_BYTES) for path, most in uploads.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = next((most for path, most in self._limits if path.fullmatch(scope["path"])), MAX_DOCUMENT_BYTES)
        detail = f"expected a request of at most {limit:,} bytes, found more; send less"
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limit:
            await _drain(receive)
            await self._refusal(scope["path"], detail)(scope, receive, send)
            return
        size_bytes = 0

        async def counted() -> Message:
            nonlocal size_bytes
            message = await receive()
            size_bytes += len(message.get("body", b""))
            if size_bytes > limit:
                if message.get("more_body", False):  # behind the last piece only the sender's leaving is told
                    await _drain(receive)
                raise HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)

    def _refusal(self, path: str, detail: str) -> Response:
        """Return the answer to a body that is too large."""
        if path.startswith(REST):
            return problem_response(413, detail, kind="too-large-error", instance=path)
        return self._page(detail)


async def _drain(receive: Receive) -> None:
    """Throw away what still comes, within limits."""
    size_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while size_bytes < DRAIN_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                size_bytes += len(message.get("body", b""))
