"""How many requests one caller may send: a token bucket for every API key, and one for all that come without."""

import math
import time
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from autoprune.service.rest.key_check import PUBLIC
from autoprune.service.rest.problems import problem_response
from autoprune.service.storage.tables import KeyScope

#: Seconds of unused requests that a caller may save up.
BURST_S = 10.0


@dataclass(slots=True)
class _Bucket:
    """Requests that a caller has left, at some time."""

    left: float
    at_s: float = field(default_factory=time.monotonic)


class RateLimit:
    """ASGI middleware that answers 429 to callers that send more than so many requests a second.

    The scope admin has no limit. Works for one event loop; a restart fills all buckets.
    """

    def __init__(self, app: ASGIApp, *, requests_per_s: int) -> None:
        """Guard `app`."""
        self._app, self._rate = app, requests_per_s
        self._buckets: dict[str | None, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may be passed on."""
        key = scope.get("state", {}).get("key")
        if scope["type"] != "http" or scope["path"] in PUBLIC or (key is not None and key.allows(KeyScope.ADMIN)):
            await self._app(scope, receive, send)
            return
        wait_s = self._spend(None if key is None else key.id)
        if wait_s == 0.0:
            await self._app(scope, receive, send)
            return
        detail = f"expected at most {self._rate} requests a second, found more; send fewer, or ask less often"
        headers = {"Retry-After": str(math.ceil(wait_s))}
        response = problem_response(429, detail, kind="too-many-requests", instance=scope["path"], headers=headers)
        await response(scope, receive, send)

    def _spend(self, caller: str | None) -> float:
        """Take one request from a caller's bucket; return 0, or after how many seconds there is one."""
        bucket, moment = self._buckets.setdefault(caller, _Bucket(self._rate * BURST_S)), time.monotonic()
        bucket.left = min(self._rate * BURST_S, bucket.left + (moment - bucket.at_s) * self._rate)
        bucket.at_s = moment
        if bucket.left < 1.0:
            return (1.0 - bucket.left) / self._rate
        bucket.left -= 1.0
        return 0.0
