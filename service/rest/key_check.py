"""Who may do what, where a service asks for API keys: ``Authorization: Bearer TOKEN``; in browsers, as a password."""

import base64
import binascii
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from autoprune.service.rest.caller_check import SAFE_METHODS
from autoprune.service.rest.problems import RECORDS_UNAVAILABLE, problem_response, records_unavailable
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.tables import KeyRow, KeyScope

#: Answered to everybody: whether the service works.
PUBLIC = frozenset(("/healthz", "/readyz"))

#: Read by devices, which thereby take work out of the queue.
_CHANGED_BY_GET = re.compile(r"/v1/devices/[^/]+/work")

_CHALLENGE = 'Bearer realm="autoprune"'

#: What makes a browser ask for a name, which may be anything, and a password, the token; it then sends both with all
#: that the page asks for. Other sites cannot use that: see :mod:`autoprune.service.rest.caller_check`.
_BROWSER_CHALLENGE = 'Basic realm="autoprune", charset="UTF-8"'


class KeyCheck:
    """ASGI middleware that answers 401 without a valid key and 403 without the scope that a request needs.

    Routes find the key as ``request.state.key``. The service must be open (``app.state.service``).
    """

    def __init__(self, app: ASGIApp) -> None:
        """Guard `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may be passed on."""
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        try:
            key = await run_in_threadpool(_key, scope)
        except RECORDS_UNAVAILABLE as failure:
            await records_unavailable(scope["path"], failure)(scope, receive, send)
            return
        needed = _needed(scope)
        if key is not None and key.allows(needed):
            scope.setdefault("state", {})["key"] = key
            await self._app(scope, receive, send)
            return
        if key is None:
            status, error, kind = 401, "invalid_token", "unauthenticated"
            detail = (
                "expected a valid API key, Authorization: Bearer TOKEN (autoprune's own client takes it from "
                "AUTOPRUNE_API_KEY); autoprune keys create makes one"
            )
        else:
            status, error, kind = 403, "insufficient_scope", "missing-scope"
            detail = f"expected an API key with scope {needed}, found {', '.join(key.scopes)}; use another key"
        challenge = _CHALLENGE
        if "authorization" in Headers(scope=scope):
            challenge += f', error="{error}"' + (f', scope="{needed}"' if status == 403 else "")
        if "text/html" in Headers(scope=scope).get("accept", ""):
            challenge = _BROWSER_CHALLENGE
        headers = {"WWW-Authenticate": challenge}
        response = problem_response(status, detail, kind=kind, instance=scope["path"], headers=headers)
        await response(scope, receive, send)


def _key(scope: Scope) -> KeyRow | None:
    """Return the active key that a request carries."""
    scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    given = given.strip()
    token = given if scheme.lower() == "bearer" else _password(given) if scheme.lower() == "basic" else None
    return None if token is None else KeyRecords(scope["app"].state.service.records).active(token)


def _password(given: str) -> str | None:
    """Return the password of basic authentication; None where that cannot be read."""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _needed(scope: Scope) -> KeyScope:
    """Return the scope that a request needs."""
    reads = scope["method"] in SAFE_METHODS and not _CHANGED_BY_GET.fullmatch(scope["path"])
    return KeyScope.READ if reads else KeyScope.WRITE
