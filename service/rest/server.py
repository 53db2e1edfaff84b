"""The HTTP server of the service."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from autoprune.service.engine.service import opened
from autoprune.service.rest.api import create_app
from autoprune.service.rest.caller_check import is_loopback
from autoprune.service.settings import DEFAULT_PORT, Settings, SettingsError


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    settings: Settings | None = None,
    ready: Callable[[str], None] = lambda url: None,
    log_level: str = "info",
) -> None:
    """Serve until interrupted; a job that runs then is queued again for the next start.

    Args:
        host: A loopback address or ``localhost``: there are no access keys yet, so nobody else may reach the service.
        port: TCP port; 0 for any free one.
        settings: None for those of the environment.
        ready: Called once with the address of the service, before it answers; connections wait from then on.
        log_level: Of the server's own messages.

    Raises:
        SettingsError: Another address, a port that is taken, an unusable folder or database, or a second service.

    """
    chosen = settings or Settings.from_environment()
    listener = listen(host, port)
    with contextlib.suppress(KeyboardInterrupt), _terminated_as_interrupted(), listener, opened(chosen) as service:
        bound = listener.getsockname()
        name = f"[{bound[0]}]" if listener.family == socket.AF_INET6 else bound[0]
        ready(f"http://{name}:{bound[1]}")
        config = uvicorn.Config(create_app(chosen, service=service), log_level=log_level, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a loopback address.

    Raises:
        SettingsError: Not a loopback address, or the port is taken.

    """
    address = "127.0.0.1" if host == "localhost" else host
    if not is_loopback(host):
        raise SettingsError(
            f"expected a loopback address (127.0.0.1, ::1 or localhost), found {host!r}: without access keys anybody "
            "who reaches the service could use it; use an SSH tunnel or a proxy that checks who asks"
        )
    if not 0 <= port <= 65535:
        raise SettingsError(f"expected a port from 0 to 65535, found {port}")
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host} port {port} ({error.strerror}); choose another port") from error
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
