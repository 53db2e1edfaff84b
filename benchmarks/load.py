"""The service under load, on loopback: status requests while jobs run, a long queue, a hundred streams of events.

    PYTHONPATH=. python benchmarks/load.py

About four minutes; the table goes to results/load.md. Load, service and jobs share the cores of the machine; with
``--priority -12`` (Linux, as root) the kernel prefers all three alike to whatever else runs there.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from _bench import note, table

from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow
from tests.service.live_service import Live, tiny_onnx
from tests.service.open_loop import Answers, asked, followed

RESULTS = Path(__file__).parent / "results" / "load.md"

PER_S = 200
STREAMS = 100
SIZES = (10, 1_000, 10_000)

#: A job that does not end by itself.
ENDLESS = {
    "dataset": "digits",
    "budget": "macs=50%",
    "policies": ["uniform"],
    "evaluations": 1,
    "finetune_epochs": 10_000,
    "fit_images": 1500,
    "search_images": 100,
    "report_images": 100,
}


_WITHOUT_RUNNER = """
from dataclasses import replace
from autoprune.service.rest.server import serve
from autoprune.service.settings import Settings
serve(port=0, settings=replace(Settings.from_environment(), run_jobs=False), ready=lambda url: print(url, flush=True))
"""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of idle and busy, in turn")
    parser.add_argument("--seconds", type=float, default=10, help="of requests in each")
    parser.add_argument("--jobs", type=int, default=2, help="that run, or wait where the service runs fewer at a time")
    parser.add_argument("--serve", default="", help="further options of autoprune serve, such as '--workers 2'")
    parser.add_argument("--priority", type=int, help="of the sessions of load, service and jobs: -20 (most) to 19")
    arguments = parser.parse_args()
    _prefer(os.getpid(), arguments.priority)
    preferred = "" if arguments.priority is None else ", over which these three have priority"
    sections = [
        "# The service under load\n",
        note(
            f"Loopback, {os.cpu_count()} cores shared by service, jobs, load and whatever else runs (load "
            f"average at the start {os.getloadavg()[0]:.1f}{preferred}). Rounds of what is compared take turns; a "
            "request counts from the time when it was due, not from when it could be sent."
        ),
        _status_section(arguments),
        _streams_section(arguments.rounds, arguments.seconds),
        _queue_section(arguments.rounds),
        note(f"Load average at the end: {os.getloadavg()[0]:.1f}."),
    ]
    RESULTS.write_text("\n".join(sections), encoding="utf-8")
    _say(RESULTS.read_text(encoding="utf-8"))


def _status_section(arguments: argparse.Namespace) -> str:
    """Ask for a job's state while jobs run, and while none do."""
    rounds, seconds, jobs = arguments.rounds, arguments.seconds, arguments.jobs
    idle, busy, running = list[Answers](), list[Answers](), list[int]()
    with serving(arguments.serve.split()) as live:
        model = live.post_model(tiny_onnx()).json()["id"]
        first = live.submit(model=model, **ENDLESS)["id"]
        live.client.post(f"/v1/jobs/{first}/cancel")
        live.finished(first)
        for number in range(rounds):
            idle.append(_status(live, first, seconds))
            ids = [live.submit(model=model, **ENDLESS)["id"] for _ in range(jobs)]
            live.wait(ids[0], lambda job: (job["progress"] or {}).get("stage") == "finetune", 120)
            running.append(sum(live.job(job_id)["state"] == "running" for job_id in ids))
            for process in psutil.Process().children(recursive=True):
                _prefer(process.pid, arguments.priority)
            busy.append(_status(live, ids[0], seconds))
            for job_id in ids:
                live.client.post(f"/v1/jobs/{job_id}/cancel")
                live.finished(job_id)
            _say(
                f"round {number + 1}: p99 {idle[-1].percentile(0.99):.1f} idle, {busy[-1].percentile(0.99):.1f} ms busy"
            )
    rows = [_row("idle", idle, idle), _row(f"{min(running)} running, {jobs - min(running)} queued", busy, idle)]
    text = (
        f"`GET /v1/jobs/ID`, {PER_S} times a second for {seconds:g} s a round, {rounds} rounds of each in turn; "
        "medians over the rounds, and the worst."
    )
    head = ["jobs", "p50 (ms)", "p99 (ms)", "worst p99 (ms)", "p99 by that of idle", "answers 200"]
    return "## Status requests\n" + note(text) + "\n" + table(head, rows)


def _streams_section(rounds: int, seconds: float) -> str:
    """Let many follow jobs whose states change, and ask for a state meanwhile."""
    alone, beside, complete = list[Answers](), list[Answers](), 0
    with serving(run_jobs=False) as live, contextlib.closing(Records(live.settings.url)) as records:
        records.add_job("asked", {})
        for number in range(rounds):
            alone.append(_status(live, "asked", seconds))
            jobs = [f"job_{number}_{index}" for index in range(10)]
            for job_id in jobs:
                records.add_job(job_id, {})
            answers, told = asyncio.run(_followed_beside(live, records, jobs, seconds))
            beside.append(answers)
            complete += sum(states == ["queued", "running", "requeued", "running", "succeeded"] for states in told)
            _say(f"streams, round {number + 1}: p99 {answers.percentile(0.99):.1f} ms")
    text = (
        f"{STREAMS} streams of the events of 10 jobs at once, each of which changes its state four times and reports "
        f"progress ten times a second, beside {PER_S} status requests a second. Streams that told every change, once "
        f"and in order: {complete} of {rounds * STREAMS}."
    )
    rows = [_row("none", alone, alone), _row(str(STREAMS), beside, alone)]
    head = ["streams", "p50 (ms)", "p99 (ms)", "worst p99 (ms)", "p99 by that of none", "answers 200"]
    return "## Streams of events\n" + note(text) + "\n" + table(head, rows)


async def _followed_beside(
    live: Live, records: Records, jobs: Sequence[str], seconds: float
) -> tuple[Answers, list[list[str]]]:
    """Follow jobs to their end while their states are asked for; return the answers, and what each stream told."""
    followers = [asyncio.create_task(followed(live.url, jobs[index % len(jobs)])) for index in range(STREAMS)]
    await asyncio.sleep(1)
    changing = asyncio.create_task(asyncio.to_thread(_change, records, jobs, seconds))
    answers = await asked(live.url, "/v1/jobs/asked", per_s=PER_S, seconds=seconds)
    await changing
    return answers, await asyncio.gather(*followers)


def _change(records: Records, jobs: Sequence[str], seconds: float) -> None:
    """Let jobs run, report, be queued again, run again and succeed, spread over so many seconds."""
    moves = (JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    for state in moves:
        for job_id in jobs:
            assert records.move(job_id, state)
        for done in range(round(10 * seconds / len(moves))):
            for job_id in jobs:
                records.report(job_id, 0, progress={"stage": "search", "done": done, "total": 1000})
            time.sleep(0.1)


def _queue_section(rounds: int) -> str:
    """Submit, list and claim beside queues of several lengths, in turn."""
    with contextlib.ExitStack() as stack:
        queues = {size: _Queue.of(stack, size) for size in SIZES}
        times = {size: {name: list[float]() for name in queue.tasks} for size, queue in queues.items()}
        for number in range(10 * rounds + 1):
            for size, queue in queues.items():
                for name, do in queue.tasks.items():
                    began = time.perf_counter()
                    do()
                    if number:  # the first time does not count
                        times[size][name].append(1000 * (time.perf_counter() - began))
        _say(f"queues: {10 * rounds} times")
    low = {size: {name: statistics.quantiles(found)[0] for name, found in each.items()} for size, each in times.items()}
    first = low[SIZES[0]]
    rows = [
        [f"{size:,}", *(f"{ms:.1f} ({ms / first[name]:.2f})" for name, ms in each.items())]
        for size, each in low.items()
    ]
    text = (
        f"Milliseconds, lower quartiles of {10 * rounds} times, and in brackets by those of the shortest queue; one "
        "service for each length, which take turns. `POST /v1/jobs`, the list of the newest 100 jobs (of 10 at first), "
        "the page at `/`, `/metrics`, and a claim as a runner of jobs makes it. SQLite."
    )
    return "## A long queue\n" + note(text) + "\n" + table(["queued", *first], rows)


@dataclass(frozen=True, slots=True)
class _Queue:
    """A service with jobs in its queue, and what is done with it."""

    tasks: Mapping[str, Callable[[], object]]

    @classmethod
    def of(cls, stack: contextlib.ExitStack, size: int) -> "_Queue":
        """Run a service with so many queued jobs until `stack` ends."""
        live = stack.enter_context(serving(run_jobs=False))
        records = stack.enter_context(contextlib.closing(Records(live.settings.url)))
        spec = {"model": live.post_model(tiny_onnx()).json()["id"], **ENDLESS}
        with records.sessions.begin() as session:
            session.add_all(JobRow(id=f"job_{number}", spec=spec, kind="search") for number in range(size))
        get = live.client.get
        tasks: dict[str, Callable[[], object]] = {
            "submit": lambda: live.submit(**spec),
            "claim": lambda: _claimed(records),
            "list": lambda: get("/v1/jobs?limit=100").raise_for_status(),
            "page": lambda: get("/").raise_for_status(),
            "metrics": lambda: get("/metrics").raise_for_status(),
        }
        return cls(tasks)


def _claimed(records: Records) -> None:
    """Take a job from the queue."""
    assert records.claim() is not None


def _status(live: Live, job_id: str, seconds: float) -> Answers:
    """Ask for the state of a job, again and again."""
    return asyncio.run(asked(live.url, f"/v1/jobs/{job_id}", per_s=PER_S, seconds=seconds))


def _row(name: str, rounds: Sequence[Answers], base: Sequence[Answers]) -> list[str]:
    """Return the percentiles of some rounds, and how they compare with others, round by round."""
    p99 = [answers.percentile(0.99) for answers in rounds]
    ratio = statistics.median(ours / theirs.percentile(0.99) for ours, theirs in zip(p99, base, strict=True))
    statuses = [status for answers in rounds for status in answers.statuses]
    return [
        name,
        f"{statistics.median(answers.percentile(0.5) for answers in rounds):.1f}",
        f"{statistics.median(p99):.1f}",
        f"{max(p99):.1f}",
        f"{ratio:.2f}",
        f"{statuses.count(200):,} of {len(statuses):,}",
    ]


@contextlib.contextmanager
def serving(options: Sequence[str] = (), *, run_jobs: bool = True) -> Iterator[Live]:
    """Run a service of its own as a user does, without a limit of requests."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home", run_jobs=run_jobs)
        command = [sys.executable, "-m", "autoprune.service.cli.app", "serve", "--port", "0", *options]
        if not run_jobs:
            command = [sys.executable, "-c", _WITHOUT_RUNNER]
        limits = {"AUTOPRUNE_REQUESTS_PER_SECOND": "1000000", "AUTOPRUNE_QUEUED_JOBS": "1000000"}
        environment = {**os.environ, **limits, "AUTOPRUNE_HOME": str(settings.home), "OMP_NUM_THREADS": "1"}
        with (
            (Path(folder) / "log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,  # noqa: S603 - our own
        ):
            assert process.stdout is not None
            try:
                url = process.stdout.readline().split()[-1]
                with httpx.Client(base_url=url, timeout=60) as client:
                    yield Live(settings, client)
            finally:
                process.terminate()


def _prefer(pid: int, priority: int | None) -> None:
    """Let the kernel prefer the session of a process, where it groups processes by session."""
    if priority is not None:
        Path(f"/proc/{pid}/autogroup").write_text(str(priority))


def _say(text: str) -> None:
    """Tell how far it is."""
    print(text, flush=True)  # noqa: T201 - a script's log


if __name__ == "__main__":
    main()
