"""The HTTP server of the service."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from autoprune.service import logs
from autoprune.service.engine.service import opened
from autoprune.service.rest.api import create_app
from autoprune.service.rest.caller_check import is_loopback
from autoprune.service.settings import DEFAULT_PORT, Settings, SettingsError
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.records import Records

#: How long requests may go on when the service is told to end, in seconds.
GRACE_S = 5


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    settings: Settings | None = None,
    ready: Callable[[str], None] = lambda url: None,
    log_level: str | None = None,
) -> None:
    """Serve until interrupted; a job that runs then is queued again for the next start.

    Args:
        host: A loopback address or ``localhost``, or with API keys any address of this machine.
        port: TCP port; 0 for any free one.
        settings: None for those of the environment.
        ready: Called once with the address of the service, before it answers; connections wait from then on.
        log_level: From which level on there are lines on stderr; None for that of the settings.

    Raises:
        SettingsError: Keys are needed and there are none, a port that is taken, or a folder or database that cannot be
            used or belongs to another.

    """
    chosen = settings or Settings.from_environment()
    if log_level is not None:
        chosen = replace(chosen, log_level=log_level)
    if not is_loopback(host):
        chosen = replace(chosen, require_keys=True)
    if chosen.require_keys:
        _check_keys(chosen, host)
    listener = listen(host, port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        stack.enter_context(_terminated_as_interrupted())
        stack.enter_context(logs.written(chosen.log_level))
        stack.enter_context(listener)
        service = stack.enter_context(opened(chosen))
        bound = listener.getsockname()
        name = f"[{bound[0]}]" if listener.family == socket.AF_INET6 else bound[0]
        ready(f"http://{name}:{bound[1]}")
        Server(create_app(chosen, service=service)).run(sockets=[listener])


class Server(uvicorn.Server):
    """The HTTP server, which ends streams of events first when it shuts down: they would outlast its patience."""

    def __init__(self, app: FastAPI) -> None:
        """Prepare to serve `app`."""
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S)
        super().__init__(config)  # what it logs goes where everybody's lines go; requests are logged by the application
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down; requests that run get :data:`GRACE_S` seconds to end."""
        self._app.state.watch.close()
        await super().shutdown(sockets)


def _check_keys(settings: Settings, host: str) -> None:
    """Refuse to serve whoever reaches this machine: without a key nobody may, so there must be one.

    Raises:
        SettingsError: No active key, or the records cannot be used.

    """
    settings.prepare()
    with contextlib.closing(Records(settings.url, create=True)) as records:
        if not KeyRecords(records).any_active():
            raise SettingsError(
                f"expected an API key in {settings.home} for serving {host!r}, found no active one: make one with "
                "autoprune keys create NAME, or serve a loopback address (127.0.0.1, ::1 or localhost) without keys"
            )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address of this machine.

    Raises:
        SettingsError: No such address, or the port is taken.

    """
    address = "127.0.0.1" if host == "localhost" else host
    if not 0 <= port <= 65535:
        raise SettingsError(f"expected a port from 0 to 65535, found {port}")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Named TCP: asyncio sets TCP_NODELAY on no other socket, and answers would wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another address or port"
        ) from error
    return listener


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, which uvicorn sends on to this process after its own shutdown, unwind the stack like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are somebody else's
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
