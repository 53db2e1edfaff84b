"""Jobs that lost whoever ran them: how far they came, and those whose folders cannot be used."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import Cancelled
from autoprune.service.engine.presence import FileLocks
from autoprune.service.engine.service import opened
from autoprune.service.engine.takeover import Takeover
from autoprune.service.pipeline.job_files import NOTEBOOK
from autoprune.service.settings import Settings
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.losses import MOST_CRASHES
from autoprune.service.storage.states import JobKind, JobState
from autoprune.service.studies.run import run_study
from tests.service.live_service import tiny_onnx


def test_figures_that_a_study_measured_count_as_progress(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False)
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx())
    small = {"dataset": "digits", "fit_images": 100, "search_images": 50, "sensitivity": {"recoveries": ["none"]}}
    spec = StudySpec.model_validate({"study": "sensitivity", "model": str(tmp_path / "tiny.onnx"), **small})
    said: list[Progress] = []
    with opened(settings) as service:
        records = service.records
        records.add_job("study", spec.model_dump(mode="json"), kind=JobKind.STUDY)
        takeover, presence = Takeover(settings, records), FileLocks(settings.runner_locks)
        losses = []
        for attempt in range(MOST_CRASHES + 1):
            assert records.claim("elsewhere/0") is not None
            if attempt in (0, 5):
                said.clear()
                most = 4 + attempt
                with pytest.raises(Cancelled):
                    run_study(
                        spec,
                        settings.artifact_folder("study"),
                        progress=said.append,
                        should_stop=lambda: len(said) >= most,  # noqa: B023 - called at once
                    )
            with (settings.artifact_folder("study") / NOTEBOOK).open("a") as notebook:
                notebook.write('["cut')  # a kill in the middle of a line
            assert takeover.of_the_dead(presence)
            losses.append(records.job("study").crashes)
    assert losses == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]


def test_a_job_whose_folder_cannot_be_used_fails_and_holds_up_no_other(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service:
        for job_id in ("a", "b", "c"):
            service.records.add_job(job_id, {"model": "none"})
        (settings.home / "jobs" / "a").touch()  # a file where a folder should be
        (settings.job_folder("b") / "worker.lock").mkdir(parents=True)
        for _ in range(3):
            service.records.claim("elsewhere/0")
        assert Takeover(settings, service.records).of_the_dead(FileLocks(settings.runner_locks))
        assert [service.records.job(job_id).state for job_id in ("a", "b", "c")] == ["failed", "failed", "queued"]
        assert service.records.job("a").error == {
            "type": "storage-error",
            "detail": "expected a folder jobs/a that the service may write, found none (File exists); "
            "give the service that folder, or move it away, and submit the job again",
        }
        (settings.home / "jobs" / "d").touch()
        service.records.add_job("d", {"model": "none"})
    with opened(settings) as service:  # its only runner begins them
        deadline = time.monotonic() + 60
        while service.records.counts()[JobState.FAILED] < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [(service.records.job(job_id).error or {})["type"] for job_id in ("a", "b", "d")] == [
            "storage-error"
        ] * 3


def test_a_folder_of_all_jobs_that_is_away_fails_none(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False)
    with opened(settings) as service:
        service.records.add_job("a", {"model": "none"})
        service.records.claim("elsewhere/0")
        (settings.home / "jobs").rmdir()
        (settings.home / "jobs").touch()
        takeover, presence = Takeover(settings, service.records), FileLocks(settings.runner_locks)
        assert not takeover.of_the_dead(presence)
        assert service.records.job("a").state == "running"
        (settings.home / "jobs").unlink()
        assert takeover.of_the_dead(presence)
        assert service.records.job("a").state == "queued"
