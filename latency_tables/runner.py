"""The program that runs on a device: ``python measure.pyz`` measures the kit's work and writes a latency table."""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from autoprune.errors import AutopruneError, Cancelled, LatencyTableError
from autoprune.latency_tables.agent import Agent
from autoprune.latency_tables.device_name import check_device, device_name
from autoprune.latency_tables.device_run import Measured, measure_work, with_choices
from autoprune.latency_tables.kit import WORK
from autoprune.latency_tables.session import processor_name
from autoprune.latency_tables.work import Work

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code: 0, 2 for what its user can change, 130 when it was stopped."""
    options = _parser().parse_args(arguments)
    try:
        with _stop_on_interrupt() as should_stop:
            if options.poll:
                name = options.device or device_name(processor_name())
                agent = Agent(options.poll, name, key=os.environ.get("AUTOPRUNE_API_KEY"))
                agent.run(once=options.once, interval_s=options.interval, say=_say, should_stop=should_stop)
            else:
                _measure_kit(options, should_stop)
    except Cancelled as error:
        _say(f"stopped: {error}")
        return 130
    except AutopruneError as error:
        _say(f"error: {' '.join(str(error).split())}")
        return 2
    return 0


def parse_duration_s(text: str) -> float:
    """Return seconds: ``90``, ``90s``, ``10m``, ``1.5h``.

    Raises:
        LatencyTableError: Not such a text.

    """
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= 1e6:
        raise LatencyTableError(f"expected a time such as 90s, 10m or 1h, found {text!r}")
    return seconds


class ProgressLine:
    """Says how far something is, and how long it will take: one line that changes, or a line for every tenth."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._started = time.monotonic()
        self._first: float | None = None
        self._said = -1

    def __call__(self, what: str, share: float) -> None:
        """Show that `share` (0 to 1) of everything is done, and that `what` is being measured."""
        elapsed = time.monotonic() - self._started
        if self._first is None:
            self._first = share
        gained = share - self._first
        left = f"{_clock(elapsed * (1 - share) / gained)} left" if gained > 0.01 else ""
        text = f"{100 * share:3.0f}%  {_clock(elapsed)}  {left:<12} {what}"
        if self._stream.isatty():
            print(f"\r{text:<60}", end="\n" if share >= 1 else "", file=self._stream, flush=True)
        elif int(10 * share) > self._said:
            self._said = int(10 * share)
            print(text, file=self._stream, flush=True)


def summary(measured: Measured) -> list[str]:
    """Return in words what was measured."""
    lines = [
        f"whole network: median {latency.median_ms:.3f} ms, p10 {latency.p10_ms:.3f} ms"
        for latency in measured.latencies.values()
    ]
    if measured.table is not None:
        lines.append(f"{len(measured.table.entries)} timed units of {len(measured.table.shapes)} kinds")
        lines += [
            f"predicted against measured whole networks: mean error {found.error:.1%}, worst {found.worst:.1%}"
            for found in measured.table.calibrations.values()
        ]
    return lines


def _measure_kit(options: argparse.Namespace, should_stop: Callable[[], bool]) -> None:
    """Measure the work of the folder that the program lies in, and write the table."""
    folder = Path(options.kit) if options.kit else Path(sys.argv[0]).resolve().parent
    try:
        work = Work.from_json((folder / WORK).read_text(encoding="utf-8"))
    except OSError as error:
        raise LatencyTableError(
            f"{folder / WORK}: cannot be read ({error.strerror}); keep the files of a kit together, or use --poll URL"
        ) from error
    seconds = None if options.time_budget is None else parse_duration_s(options.time_budget)
    work = with_choices(work, threads=options.threads, time_budget_s=seconds)
    device = check_device(options.device or work.device or device_name(processor_name()))
    output = Path(options.output) if options.output else folder / "latency-table.json"
    state = output.with_name(f"{output.stem}.{device}-{work.precision}-t{work.threads}.state.jsonl")
    if options.fresh:
        state.unlink(missing_ok=True)
    _say(f"measuring {device}, {work.precision}, {work.threads} thread(s), about {_clock(work.time_budget_s)} minutes")
    measured = measure_work(
        work, folder, device=device, state=state, report=ProgressLine(sys.stderr), should_stop=should_stop
    )
    for line in summary(measured):
        _say(line)
    if measured.table is None:
        raise LatencyTableError(f"{folder / WORK}: names no units to be measured, so there is no table")
    measured.table.save(output)
    if measured.complete:
        state.unlink(missing_ok=True)  # the next table is measured anew; an unfinished one goes on
    _say(f"written: {output}")
    _say(f"next, where autoprune is: autoprune device import {output.name}")


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop, the second into an interruption at once."""
    asked = False

    def ask(_: int, __: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        _say("stopping; once more to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    parser = argparse.ArgumentParser(
        prog="measure.pyz", description="Measure how long the layers of a network take on this device."
    )
    parser.add_argument("--device", metavar="NAME", help="name of this device (default: that of its processor)")
    parser.add_argument("--threads", type=int, help="threads within an operator (default: as the kit says)")
    parser.add_argument("--time-budget", metavar="TIME", help="such as 90s or 10m (default: as the kit says)")
    parser.add_argument("--output", "-o", metavar="FILE", help="where the table goes (default: latency-table.json)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier, unfinished run measured")
    parser.add_argument("--kit", metavar="FOLDER", help="folder with work.json (default: where this program lies)")
    parser.add_argument(
        "--poll",
        metavar="URL",
        help="fetch work from a service instead of the kit, again and again; "
        "the token of its API key, if it asks for one, in AUTOPRUNE_API_KEY",
    )
    parser.add_argument("--interval", type=float, default=10.0, metavar="S", help="seconds between two questions")
    parser.add_argument("--once", action="store_true", help="with --poll: end when there is no work left")
    return parser


def _clock(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _say(text: str) -> None:
    """Write a line for the person at the device."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is a program


if __name__ == "__main__":
    sys.exit(main())
