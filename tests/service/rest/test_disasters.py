"""A disk that is full or cannot be written: clear errors, nothing lost that was accepted, and on it goes afterwards."""

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autoprune.service.engine.service import opened
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.records import Records
from tests.service.live_service import images_npz, in_thread, tiny_onnx
from tests.service.small_disk import SmallDisk, small_disk

JOB = {"dataset": "digits", "budget": "macs=50%", "policies": ["uniform"], "evaluations": 3, "fit_images": 200,
       "search_images": 100, "report_images": 100}  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, 8) as disk:
        yield disk


def refused(answer: httpx.Response, status: int, kind: str) -> None:
    """Make sure that an answer says what cannot be done now."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == f"urn:autoprune:problem:{kind}"


def test_a_full_disk_loses_nothing_and_all_goes_on_once_there_is_space(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(disk.folder / "home")
    with in_thread(settings) as live:
        model = live.post_model(tiny_onnx()).json()
        job = live.submit(model=model["id"], **JOB, finetune_epochs=20)
        with contextlib.closing(Records(settings.url)) as records:
            records.add_job("waiting", {"model": "none"})
        live.wait(job["id"], lambda found: (found["progress"] or {}).get("stage") == "finetune")
        disk.fill()
        larger = tiny_onnx(seed=1, width=64)
        refused(live.post_model(larger), 507, "storage-error")
        refused(live.post_dataset(images_npz(2000), "a.npz"), 507, "storage-error")
        with monkeypatch.context() as patch:  # where parts of requests are put that are too large for memory
            patch.setattr(tempfile, "tempdir", str(disk.folder))
            refused(live.post_dataset(images_npz(50_000), "a.npz"), 507, "storage-error")
        accepted = []
        while (answer := live.client.post("/v1/jobs", json={"model": model["id"], **JOB})).status_code == 201:
            accepted.append(answer.json()["id"])  # what is free in the file of the records is used up
        refused(answer, 503, "records-unavailable")
        assert "cannot be written" in live.client.get("/readyz").json()["detail"]
        assert live.client.get(f"/v1/models/{model['id']}").json() == model
        time.sleep(2)
        disk.free()
        done = live.finished(job["id"])  # its artifacts could be written once there was space, or the reason why not
        assert done["attempts"] == 1
        assert done["error"] is None or re.search("No space left|disk is full", done["error"]["detail"])
        assert live.finished("waiting")["state"] == "failed"  # the runner goes on
        assert live.client.get("/readyz").status_code == 200
        assert live.post_model(larger).status_code == 201
        listed = [entry["id"] for entry in live.client.get("/v1/jobs").json()]
        assert listed == [*reversed(accepted), "waiting", job["id"]]


def test_a_folder_that_cannot_be_written_is_told_at_the_start(disk: SmallDisk) -> None:
    settings = Settings(disk.folder / "home", run_jobs=False)
    with opened(settings) as service:
        service.records.add_job("a", {})
    disk.make_read_only()
    with pytest.raises(SettingsError, match=r"cannot write to .*Read-only.* set AUTOPRUNE_HOME"), opened(settings):
        pass
