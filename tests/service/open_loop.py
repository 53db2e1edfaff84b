"""Requests sent at times that were fixed beforehand, however slow the answers are, and streams that many follow.

A client that waits for one answer before it asks again asks a slow service less often, and so measures it too kindly.
Sockets are read without an HTTP library, which would take more of the machine than the service does.
"""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back.

    Attributes:
        latencies_ms: From the time when each request was due to the end of its answer, in the order of requests.
        statuses: Of the answers.

    """

    latencies_ms: Sequence[float]
    statuses: Sequence[int]

    def percentile(self, share: float) -> float:
        """Return the latency that this share of answers kept to, in milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def asked(url: str, path: str, *, per_s: float, seconds: float, connections: int = 16) -> Answers:
    """GET `path` of the service at `url` so many times a second, over connections that stay open."""
    streams = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
    for _ in range(connections):
        streams.put_nowait(await _connected(url))
    began, latencies, statuses = time.perf_counter() + 0.05, list[float](), list[int]()

    async def one(due: float) -> None:
        reader, writer = await streams.get()
        status = await _got(reader, writer, path)
        streams.put_nowait((reader, writer))
        latencies.append(1000 * (time.perf_counter() - due))
        statuses.append(status)

    async with asyncio.TaskGroup() as tasks:
        for number in range(round(per_s * seconds)):
            due = began + number / per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(due))
    while not streams.empty():
        streams.get_nowait()[1].close()
    return Answers(latencies, statuses)


async def followed(url: str, job_id: str) -> list[str]:
    """Return the states that a stream of a job's events tells, read to its end."""
    reader, writer = await _connected(url)
    writer.write(_request(f"/v1/jobs/{job_id}/events"))
    status, _ = await _head(reader)
    assert status == 200, status
    text = (await reader.read()).decode()  # to the end of the connection, which the request asks for
    writer.close()
    told = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [str(data["state"]) for data in map(json.loads, told) if "state" in data]


async def _connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    address = urlsplit(url)
    return await asyncio.open_connection(address.hostname, address.port)


def _request(path: str, *, stays_open: bool = False) -> bytes:
    """Return a GET as it is sent."""
    connection = "keep-alive" if stays_open else "close"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n\r\n".encode()


async def _got(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """GET `path`; return the status once all of the answer is there."""
    writer.write(_request(path, stays_open=True))
    status, headers = await _head(reader)
    await reader.readexactly(int(headers["content-length"]))
    return status


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the status and the headers of an answer."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    pairs = (line.partition(": ") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}
