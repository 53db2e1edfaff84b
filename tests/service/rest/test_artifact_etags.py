"""Artifacts are not sent to who has them."""

import contextlib
import hashlib
from collections.abc import Iterator

import pytest

from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import ArtifactRow
from tests.service.live_service import Live, in_thread

CONTENT = b"<html></html>"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
ADDRESS = "/v1/jobs/done/artifacts/report.html"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with in_thread(Settings(tmp_path_factory.mktemp("etags") / "home", run_jobs=False)) as service:
        folder = service.settings.artifact_folder("done")
        folder.mkdir(parents=True)
        (folder / "report.html").write_bytes(CONTENT)
        with contextlib.closing(Records(service.settings.url)) as records:
            records.add_job("done", {})
            records.move("done", JobState.RUNNING)
            artifact = ArtifactRow(
                job_id="done", name="report.html", sha256=ETAG[1:-1], size_bytes=len(CONTENT), media_type="text/html"
            )
            records.move("done", JobState.SUCCEEDED, artifacts=[artifact])
        yield service


@pytest.mark.parametrize("named", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', f'"x" ,W/{ETAG}', "*"])
def test_a_file_that_is_there_is_not_sent(live: Live, named: str) -> None:
    answer = live.client.get(ADDRESS, headers={"If-None-Match": named})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", ETAG)


@pytest.mark.parametrize("named", ['"x"', ETAG[1:-1], "", '"*"'])
def test_another_file_is_sent(live: Live, named: str) -> None:
    answer = live.client.get(ADDRESS, headers={"If-None-Match": named})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, CONTENT, ETAG)


def test_what_is_not_there_is_not_found(live: Live) -> None:
    answer = live.client.get("/v1/jobs/done/artifacts/none", headers={"If-None-Match": "*"})
    assert answer.status_code == 404
