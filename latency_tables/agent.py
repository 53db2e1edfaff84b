"""The pull agent: a device asks a service for work, measures it, and sends back what it found.

The device opens every connection, so it may sit behind any router. Only the standard library speaks HTTP here.
"""

import json
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from autoprune.errors import AutopruneError, Cancelled, LatencyTableError
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.device_run import Measured, measure_work
from autoprune.latency_tables.work import Work

RESULT_FORMAT = "autoprune-device-result"
RESULT_VERSION = 1

_TIMEOUT_S = 60.0
_MOST_REPLY_BYTES = 64 * 2**20
_MOST_WAIT_S = 300.0
#: How often a result is sent to a service that cannot be reached, and seconds before the second time; then twice that.
_SENDS, _RESEND_S = 10, 5.0
#: Answers to a result after which the agent goes on: somebody else was first, or the service does not want it.
_REFUSED = (409, 413, 422)
#: Answer for files of work that has ended meanwhile.
_GONE = 404
#: Answer to those who ask too often.
_TOO_MANY = 429


class ServiceError(AutopruneError):
    """The service cannot be reached, or refuses what the device asks or sends."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """Say what happened; `status` is that of the answer, None where there was no answer."""
        super().__init__(message)
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status >= 500 or self.status == _TOO_MANY


def result_document(measured: Measured) -> dict[str, Any]:
    """Return what a device sends back: its conditions, its table, and the latencies of networks by file hash."""
    return {
        "format": RESULT_FORMAT,
        "version": RESULT_VERSION,
        "conditions": measured.conditions.to_dict(),
        "table": None if measured.table is None else json.loads(measured.table.to_json()),
        "latencies": {sha256: latency.to_dict() for sha256, latency in measured.latencies.items()},
    }


class Agent:
    """Fetches work for one device from one service and does it."""

    def __init__(self, url: str, device: str, *, key: str | None = None) -> None:
        """Work for the service at `url` as `device`, with the token of an API `key` where the service asks for one.

        Raises:
            LatencyTableError: Not an HTTP address, or no name of a device.

        """
        if not url.startswith(("http://", "https://")):
            raise LatencyTableError(f"--poll: expected an address such as http://192.168.1.2:8765, found {url!r}")
        self._url = f"{url.rstrip('/')}/v1/devices/{check_device(device)}"
        self._device = device
        self._key = key

    def run(
        self,
        *,
        once: bool,
        interval_s: float,
        say: Callable[[str], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do work until `should_stop`; with `once`, until there is none.

        A service that cannot be reached is asked again later, less and less often.

        Raises:
            ServiceError: With `once`, the service cannot be reached; always, it refuses the device.
            Cancelled: Stopped while something was measured.

        """
        wait_s = interval_s
        while not should_stop():
            try:
                found = self.do_one(say, should_stop)
                wait_s = interval_s
            except ServiceError as error:
                if once or not error.may_pass:
                    raise
                say(f"{error}; asking again in {wait_s:.0f} s")
                found, wait_s = False, min(2 * wait_s, _MOST_WAIT_S)
            if not found and once:
                return
            if not found:
                _wait(wait_s, should_stop)

    def do_one(self, say: Callable[[str], None], should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Fetch, measure and send back one piece of work; return whether there was any.

        Raises:
            ServiceError: The service cannot be reached or refuses.
            Cancelled: `should_stop` said so; the service gives the work out again later.

        """
        reply = self._request(f"{self._url}/work")
        if not reply:
            return False
        data = _json(reply)
        work_id = str(data.get("id"))
        say(f"measuring {work_id}")
        try:
            document = self._measured(data, should_stop)
        except Cancelled:
            raise
        except ServiceError as error:
            if error.status != _GONE:
                raise
            say(f"{work_id}: the service has no use for it any more: {error}")
            return True
        except AutopruneError as error:
            say(f"{work_id}: {error}")
            document = {"format": RESULT_FORMAT, "version": RESULT_VERSION, "error": str(error)[:2000]}
        try:
            self._deliver(f"{self._url}/work/{work_id}/result", document, say, should_stop)
        except ServiceError as error:
            if error.status not in _REFUSED:
                raise
            say(f"{work_id}: the result was refused: {error}")
        else:
            say(f"{work_id}: sent")
        return True

    def _measured(self, data: dict[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Download what the work needs and measure it."""
        work = Work.from_dict(data.get("work"))
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            folder = Path(name)
            for network in work.networks:
                path = folder / network.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._request(f"{self._url}/files/{network.sha256}", most=2**31))
            return result_document(measure_work(work, folder, device=self._device, should_stop=should_stop))

    def _deliver(
        self, url: str, document: dict[str, Any], say: Callable[[str], None], should_stop: Callable[[], bool]
    ) -> None:
        """Post a document, again and again while the service cannot be reached: measuring it anew takes longer."""
        wait_s = _RESEND_S
        for left in reversed(range(_SENDS)):
            try:
                self._send(url, document)
                return
            except ServiceError as error:
                if not left or should_stop() or not error.may_pass:
                    raise
                say(f"{error}; sending again in {wait_s:.0f} s")
            _wait(wait_s, should_stop)
            wait_s = min(2 * wait_s, _MOST_WAIT_S)

    def _send(self, url: str, document: dict[str, Any]) -> None:
        """Post a document as an uploaded file."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="result.json"\r\n'
            "Content-Type: application/json\r\n\r\n"
        )
        body = head.encode() + json.dumps(document).encode() + f"\r\n--{boundary}--\r\n".encode()
        self._request(url, body=body, content_type=f"multipart/form-data; boundary={boundary}")

    def _request(
        self, url: str, *, body: bytes | None = None, content_type: str = "", most: int = _MOST_REPLY_BYTES
    ) -> bytes:
        """Get, or post a body; return what the service answers.

        Raises:
            ServiceError: No answer, or one that is an error.

        """
        headers = {"Content-Type": content_type} if content_type else {}
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - http(s), checked above
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
                content = bytes(reply.read(most + 1))
        except urllib.error.HTTPError as error:
            raise ServiceError(f"{url}: {_reason(error)}", error.code) from error
        except (OSError, HTTPException) as error:
            raise ServiceError(
                f"{url}: cannot be reached ({error}); check that the service runs, and the address or tunnel"
            ) from error
        if len(content) > most:
            raise ServiceError(f"{url}: answers with more than {most:,} bytes")
        return content


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what an answer that is an error says."""
    text = error.read(2**16).decode("utf-8", "replace")
    try:
        return f"{error.code}: {json.loads(text)['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _json(content: bytes) -> dict[str, Any]:
    """Read an answer."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ServiceError(f"the service answers with something that is no JSON ({error})") from error
    if not isinstance(data, dict):
        raise ServiceError(f"expected work from the service, found {type(data).__name__}")
    return data


def _wait(seconds: float, should_stop: Callable[[], bool]) -> None:
    """Sleep, but not past a request to stop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not should_stop():
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
