"""Who reads uploads, as they come and again for each job: a few threads of their own.

So neither memory nor the threads of other requests run out.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

#: Uploads and models of new jobs that are read at a time; other uploads wait on disk. Reading a model takes about five
#: times its size.
AT_A_TIME = 2

_Found = TypeVar("_Found")


class UploadReaders:
    """Runs what reads uploads. Works for one event loop."""

    def __init__(self) -> None:
        """Begin with nobody reading."""
        self._limiter = CapacityLimiter(AT_A_TIME)

    async def run(self, read: Callable[[], _Found]) -> _Found:
        """Return what `read` returns, called in a thread once it is its turn."""
        return await to_thread.run_sync(read, limiter=self._limiter)


def _readers(request: Request) -> UploadReaders:
    """Return the readers of the application that got the request."""
    readers = request.app.state.upload_readers
    assert isinstance(readers, UploadReaders)
    return readers


TheReaders = Annotated[UploadReaders, Depends(_readers)]
