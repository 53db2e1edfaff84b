"""Jobs that lost whoever ran them: how far they came, and those whose folders cannot be used."""

from pathlib import Path

import pytest

from autoprune.errors import Cancelled
from autoprune.service.engine.presence import FileLocks
from autoprune.service.engine.service import opened
from autoprune.service.engine.takeover import Takeover
from autoprune.service.pipeline.job_files import NOTEBOOK
from autoprune.service.settings import Settings
from autoprune.service.specs.job_spec import Progress
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.losses import MOST_CRASHES
from autoprune.service.storage.tables import JobKind
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
