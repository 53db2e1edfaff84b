"""Requests to one service, and its answers: read, or raised as errors."""

import contextlib
import os
import uuid
from collections.abc import Generator, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from autoprune.service.client.errors import NO_SERVICE, UNREACHABLE, ClientError
from autoprune.service.client.watching import patiently
from autoprune.service.settings import DEFAULT_URL

#: How long the service may look into an upload before it answers, in seconds.
UPLOAD_TIMEOUT_S = 900.0

#: How a connection breaks, or is given up, after a request was sent or a part of it: nobody knows what became of it.
_TOO_SLOW = (httpx.ReadTimeout, httpx.WriteTimeout)
_LOST = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError, *_TOO_SLOW)

#: Answers of a proxy, or of a service without its records, that say as little.
_UNAVAILABLE = (502, 503, 504)

_PROBLEM_PREFIX = "urn:autoprune:problem:"

_Answer = TypeVar("_Answer")


class Connection:
    """Talks to one service. Connections are kept open between requests; threads may share it."""

    def __init__(self, url: str | None, api_key: str | None, timeout_s: float) -> None:
        """Take the address and the key that are given, else those of the environment, else the default address.

        Proxies of the environment are not used.

        Raises:
            ClientError: No address of the web, or a key that no header can carry.

        """
        self.url = (url or os.environ.get("AUTOPRUNE_URL") or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get("AUTOPRUNE_API_KEY")
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise ClientError(
                "api_key: expected printable ASCII without spaces, found something else; copy the key again",
                type="invalid-request",
            )
        self._timeout_s = timeout_s
        headers = {} if not key else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=_checked_url(self.url), headers=headers, timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """Close the connections that are open."""
        self._http.close()

    def get(self, kind: type[_Answer], path: str, params: Mapping[str, str | int] | None = None) -> _Answer:
        """Return what the service answers to a GET.

        Raises:
            ClientError: It refuses, does not answer, or answers something else.

        """
        return self._read(kind, self._send("GET", path, params=params))

    def post(self, kind: type[_Answer], path: str, document: object = None) -> _Answer:
        """Return what the service answers to a JSON document, or to none; errors as of :meth:`get`."""
        return self._read(kind, self._send("POST", path, json=document))

    def create(self, kind: type[_Answer], path: str, document: object, *, patience_s: float) -> _Answer:
        """Return what the service answers to a JSON document that makes something, once, however often it is sent.

        Where the connection is lost before the answer, or the service is unavailable, it is sent again under the same
        ``Idempotency-Key`` for `patience_s` seconds. Errors as of :meth:`get`.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}

        def send() -> httpx.Response:
            return self._send("POST", path, json=document, headers=headers)

        try:
            response = send()
        except ClientError as error:
            if not isinstance(error.__cause__, _LOST) and error.status not in _UNAVAILABLE:
                raise
            response = patiently(send, patience_s, float("inf"))
        return self._read(kind, response)

    def events(self, path: str, *, timeout_s: float) -> Generator[tuple[str, str]]:
        """Yield the Server-Sent Events at `path`, each its name and data, until the service ends them.

        Errors as of :meth:`get`, also where nothing at all comes for `timeout_s` seconds.
        """
        timeout = httpx.Timeout(self._timeout_s, read=timeout_s)
        with self._failures(), self._http.stream("GET", path, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    yield fields.get("event", ""), fields["data"]
                    fields = {}

    def upload(
        self, kind: type[_Answer], path: str, file: BinaryIO, name: str, fields: Mapping[str, str] | None = None
    ) -> _Answer:
        """Return what the service answers to a file and the form fields beside it; errors as of :meth:`get`."""
        timeout = httpx.Timeout(self._timeout_s, read=max(self._timeout_s, UPLOAD_TIMEOUT_S))
        files = {"file": (name, file, "application/octet-stream")}
        return self._read(kind, self._send("POST", path, files=files, data=fields, timeout=timeout))

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the content at `path`, piece by piece; errors as of :meth:`get`."""
        with self._failures(), self._http.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield from response.iter_bytes()

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """Return a successful answer."""
        with self._failures():
            response = self._http.request(method, path, **arguments)
        if not response.is_success:
            raise self._refusal(response)
        return response

    def _read(self, kind: type[_Answer], response: httpx.Response) -> _Answer:
        """Return an answer as what it should be."""
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise self._stranger(response, "found another answer") from error

    def _refusal(self, response: httpx.Response) -> ClientError:
        """Return the error that an answer reports."""
        try:
            problem = response.json()
            kind, detail = problem["type"].removeprefix(_PROBLEM_PREFIX), str(problem["detail"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._stranger(response, f"found {' '.join(response.text.split())[:200]!r}")
        return ClientError(detail, type=kind, status=response.status_code)

    def _stranger(self, response: httpx.Response, found: str) -> ClientError:
        """Return the error for an answer that is not one of this service."""
        return ClientError(
            f"expected autoprune's service at {self.url}, {found} (HTTP {response.status_code}, "
            f"{response.request.method} {response.request.url.path}); check the address, and that client and service "
            "are of the same version",
            type=NO_SERVICE,
            status=response.status_code,
        )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what fails on the way into an error that says which address was tried."""
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            advice = (
                "start the service with `autoprune serve`, or name the address of another one (url, --url or "
                "AUTOPRUNE_URL)"
            )
            if isinstance(error, _TOO_SLOW):
                advice = "it is there but busy, and may yet do what it was asked: look first, then ask again"
            raise ClientError(f"no answer from {self.url} ({reason}); {advice}", type=UNREACHABLE) from error


def _checked_url(text: str) -> httpx.URL:
    """Return an address, if it is one of the web."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ClientError(f"url: expected an address such as {DEFAULT_URL}, found {text!r}", type="invalid-request")
    return url
