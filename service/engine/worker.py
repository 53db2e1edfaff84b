"""The process of one job: ``python -m autoprune.service.engine.worker <job id> <attempt>``, started by the runner."""

import contextlib
import errno
import logging
import mimetypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from autoprune.errors import AutopruneError, Cancelled
from autoprune.files import file_sha256
from autoprune.service import logs
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.engine.job_inputs import resolve
from autoprune.service.failure import kind_of
from autoprune.service.locks import held
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.database import AWAY
from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobKind, JobState
from autoprune.service.storage.tables import ArtifactRow, Json

#: Least time between two progress records of the same stage.
PROGRESS_S = 0.25

EXIT_STOPPED = 75

#: Another process works on the job: this attempt never began.
EXIT_LOCKED = 76

#: The records cannot be used, which may pass.
EXIT_RECORDS = 77

_LOCK_S = 5.0

#: How long a job waits for the records when it begins, in seconds; an outcome waits for ever.
_DATABASE_S = 600.0

if TYPE_CHECKING:
    from autoprune.service.devices.work import DeviceTimer

_log = logging.getLogger(__name__)


def main(job_id: str, attempt: int) -> int:
    """Run one attempt of a job and record its outcome; return the exit code of this process.

    The URL of the records is the first line of standard input.
    """
    url = _line()
    threading.Thread(target=_die_with_service, name="lifeline", daemon=True).start()
    with contextlib.suppress(OSError):  # Linux: out of memory, the system ends this process before the service
        Path("/proc/self/oom_score_adj").write_text("500")
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    settings = replace(Settings.from_environment(), database_url=url)
    with held(settings.job_folder(job_id) / "worker.lock", wait_s=_LOCK_S) as locked:
        if not locked:
            _log.error("another process works on job %s", job_id)
            return EXIT_LOCKED
        try:
            with contextlib.closing(_opened(settings.url, stop)) as records:
                return _run(settings, records, job_id, attempt, stop)
        except Cancelled:
            return EXIT_STOPPED
        except (SettingsError, *AWAY):
            _log.exception("job %s: the database is away", job_id)
            return EXIT_RECORDS


def _opened(url: str, stop: threading.Event) -> Records:
    """Open the records, as soon as they can be.

    Raises:
        SettingsError: They cannot be opened for a long time.
        Cancelled: Told to stop meanwhile.

    """
    deadline = time.monotonic() + _DATABASE_S
    while True:
        try:
            return Records(url)
        except SettingsError as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("waiting for the database: %s", error)
            _wait(stop)


def _insist(move: Callable[[], object], stop: threading.Event) -> None:
    """Record the outcome of a job by `move`, as soon as the database can be written.

    Raises:
        Cancelled: Told to stop meanwhile.

    """
    while True:
        try:
            move()
        except AWAY as error:
            _log.warning("the outcome cannot be recorded; waiting for the database: %s", error)
            _wait(stop)
        else:
            return


def _wait(stop: threading.Event) -> None:
    """Wait before something is tried again.

    Raises:
        Cancelled: Told to stop meanwhile.

    """
    if stop.wait(1.0):
        raise Cancelled("told to stop while the database is away")


def _run(settings: Settings, records: Records, job_id: str, attempt: int, stop: threading.Event) -> int:
    """Run the pipeline; the job boundary: whatever goes wrong with the job ends here, as its error.

    Raises:
        OperationalError: The database is away.
        Cancelled: Told to stop while the outcome could not be recorded.

    """
    try:
        _compute(settings, records, job_id, attempt, stop)
    except Cancelled:
        _log.warning("job %s stops: %s", job_id, "asked to" if stop.is_set() else "cancelled")
        return EXIT_STOPPED
    except AWAY:
        raise
    except AutopruneError as error:
        _log.error("job %s: %s", job_id, error)
        told = {"type": kind_of(error), "detail": str(error)}
        _insist(lambda: records.move(job_id, JobState.FAILED, attempt=attempt, error=told), stop)
        return 2
    except Exception as error:
        _log.exception("job %s: a defect, or no resources", job_id)
        defect = _defect(error)
        _insist(lambda: records.move(job_id, JobState.FAILED, attempt=attempt, error=defect), stop)
        return 1

    def succeed() -> None:  # rows that could not be written are not tried again
        artifacts = [_artifact(job_id, path, name) for name, path in _files(settings.artifact_folder(job_id))]
        records.move(job_id, JobState.SUCCEEDED, attempt=attempt, artifacts=artifacts)

    _insist(succeed, stop)
    return 0


def _defect(error: Exception) -> Json:
    """Return the error of a job that failed by none of its user's doing."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        detail = f"the job's folder cannot be written ({error.strerror}); free some space and submit it again"
        return {"type": "storage-error", "detail": detail}
    detail = f"a defect of autoprune, or a machine out of resources: {type(error).__name__}: {str(error)[:1000]}"
    return {"type": "defect", "detail": detail}


def _compute(settings: Settings, records: Records, job_id: str, attempt: int, stop: threading.Event) -> None:
    """Run the pipeline in the job's folder, so that every path in its messages is relative to that."""
    row, store = records.job(job_id), FileStore(settings.store)
    if row.kind == JobKind.STUDY:
        study = StudySpec.model_validate(row.spec)
        resolved = resolve(study.inputs(), records, store, settings, job_id)
        run = _study(study.with_inputs(resolved))
    else:
        kind = ComparisonSpec if row.kind == JobKind.COMPARISON else JobSpec
        resolved = resolve(kind.model_validate(row.spec), records, store, settings, job_id)
        run = _pipeline(resolved)
    os.chdir(settings.job_folder(job_id))
    artifacts = Path("artifacts")
    artifacts.mkdir(exist_ok=True)
    progress = _ProgressWriter(records, job_id, attempt)
    timer = _timer(resolved, records, store, stop)
    run(artifacts, progress=progress, should_stop=stop.is_set, timer=timer)


def _pipeline(spec: JobSpec) -> Callable[..., object]:
    """Return what runs a spec; imports torch, so what fails without it should fail sooner."""
    if isinstance(spec, ComparisonSpec):
        from autoprune.service.comparisons.run import run_comparison

        return partial(run_comparison, spec)
    from autoprune.service.pipeline.run import run_job

    return partial(run_job, spec)


def _study(spec: StudySpec) -> Callable[..., object]:
    """Return what runs a study; imports torch."""
    from autoprune.service.studies.run import run_study

    return partial(run_study, spec)


def _timer(spec: JobSpec, records: Records, store: FileStore, stop: threading.Event) -> "DeviceTimer | None":
    """Return what times files on the device of a job, if that device asks for work."""
    from autoprune.service.devices.work import DeviceTimer, is_polling  # imports onnxruntime
    from autoprune.service.pipeline.inputs import device_table

    table = device_table(spec)
    if table is None:
        return None
    devices, device = DeviceRecords(records), table.conditions.device  # of a table's id, too
    if not is_polling(devices, device):
        return None
    return DeviceTimer(devices, store, device, table.conditions.precision, should_stop=stop.is_set)


class _ProgressWriter:
    """Writes progress into the job's record: every new stage, and within a stage a few times a second."""

    def __init__(self, records: Records, job_id: str, attempt: int) -> None:
        self._records, self._job_id, self._attempt = records, job_id, attempt
        self._last: tuple[str, str | None, int | None] | None = None
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        stage = (progress.stage, progress.policy, progress.seed)
        if stage == self._last and progress.done < progress.total and time.monotonic() < self._next_s:
            return
        self._last, self._next_s = stage, time.monotonic() + PROGRESS_S
        try:
            self._records.report(self._job_id, self._attempt, progress=_json(progress))
        except AWAY as error:  # the job goes on, and its next progress is recorded
            _log.warning("progress is not recorded: %s", error)
            self._last = None


def _json(progress: Progress) -> Json:
    """Turn progress into its record."""
    return progress.model_dump(mode="json")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the artifacts in a folder by name: no hidden or temporary files, and not the journal."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        private = path.name.startswith(("journal.sqlite", ".")) or path.suffix == ".tmp"
        if path.is_file() and not path.is_symlink() and not private:
            yield name, path


def _artifact(job_id: str, path: Path, name: str) -> ArtifactRow:
    """Describe one artifact."""
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    size = path.stat().st_size
    return ArtifactRow(job_id=job_id, name=name, sha256=file_sha256(path), size_bytes=size, media_type=media_type)


def _line() -> str:
    """Read a line of standard input, and not a byte more."""
    text = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        text += byte
    return text.decode()


def _die_with_service() -> None:
    """Wait for the end of standard input, which the service holds open; then end this process and its children."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    with logs.written(Settings.from_environment().log_level):
        sys.exit(main(sys.argv[1], int(sys.argv[2])))
