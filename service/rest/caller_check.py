"""What a page of another site makes a browser send is refused: by DNS rebinding, by forms, by scripts."""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from autoprune.service.rest.problems import problem_response

#: Methods that change nothing.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class CallerCheck:
    """ASGI middleware that answers 403 unless a request is addressed to, and comes from, this machine.

    Without keys the service listens on loopback addresses only. A browser on the same machine reaches them too, for any
    page that it shows: under a name of that page's site which was made to resolve to 127.0.0.1 (then ``Host`` is that
    name), or directly (then ``Origin`` names the site). Programs send no ``Origin``.

    Where every request carries a key, which no other site knows, the service may have any name; what pages of other
    sites send is refused all the same.
    """

    def __init__(self, app: ASGIApp, *, any_host: bool = False) -> None:
        """Guard `app`; with `any_host`, under whatever name it is asked."""
        self._app, self._any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may be passed on."""
        detail = _refusal(scope, any_host=self._any_host) if scope["type"] == "http" else None
        if detail is None:
            await self._app(scope, receive, send)
            return
        response = problem_response(403, detail, kind="foreign-caller", instance=scope["path"])
        await response(scope, receive, send)


def _refusal(scope: Scope, *, any_host: bool) -> str | None:
    """Return why a request is refused, or None."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not any_host and not is_local(f"//{host}"):
        return f"expected a request to 127.0.0.1, [::1] or localhost, found the Host {host[:200]!r}; use one of these"
    origin = headers.get("origin")
    if origin is None or scope.get("method") in SAFE_METHODS:
        return None
    if origin in (f"http://{host}", f"https://{host}"):
        return None
    return (
        f"expected a request from this service's own pages or from a program, found the Origin {origin[:200]!r} at the "
        f"Host {host[:200]!r}; a proxy before the service must pass the browser's Host on (nginx: proxy_set_header "
        "Host $http_host)"
    )


def is_local(url: str) -> bool:
    """Tell whether the host of `url` is this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # no URL
        return False


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine: a loopback address or ``localhost``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
