"""The page over HTTP: what it shows, what it escapes, and what it says of a form that is wrong."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autoprune.service.comparisons import comparison_result
from autoprune.service.pages.rendering import POLICY
from autoprune.service.results.job_result import FILE
from autoprune.service.results.live_search import LIVE
from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import ArtifactRow
from tests.service.comparison_samples import sample_comparison
from tests.service.html_page import HOSTILE, Page
from tests.service.live_samples import head_line, trial_line
from tests.service.live_service import Live, images_npz, in_thread, tiny_onnx
from tests.service.result_samples import sample_result

FORM = {"kind": "job", "model": "", "architecture": "", "dataset": "digits", "budget": "macs=50%", "device": "",
        "policies": ["uniform", "exact"], "evaluations": "20", "finetune_epochs": "0", "seed": "0",
        "seeds": "2"}  # fmt: skip


@pytest.fixture(scope="module")
def model(live: Live) -> str:
    return str(live.post_model(tiny_onnx()).json()["id"])


def post(live: Live, *, files: dict[str, tuple[str, bytes]] | None = None, **changes: object) -> httpx.Response:
    """Send the form as a browser does: file inputs that are left empty are sent as well."""
    sent = dict.fromkeys(("model_file", "dataset_file"), ("", b"")) | (files or {})
    return live.client.post("/jobs", data={**FORM, **changes}, files=sent)


def error_at(page: str, field: str) -> str:
    """Return what is wrong with a field, which says so itself."""
    assert re.search(rf'aria-describedby="[^"]*{field}-error"', page), page
    found = re.search(rf'<p class="error" id="{field}-error">(.*?)</p>', page, re.DOTALL)
    assert found is not None, page
    return found[1]


def submitted(live: Live, model: str, **changes: object) -> str:
    """Start a job through the form; return the address of its page."""
    answer = post(live, model=model, **changes)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def run(live: Live, records: Records, model: str) -> tuple[str, int]:
    """Return a job that says it runs, and its attempt."""
    job_id = submitted(live, model).rpartition("/")[2]
    while (row := records.claim()) is not None and row.id != job_id:
        records.move(row.id, JobState.CANCELLED)
    assert row is not None
    (live.settings.artifact_folder(job_id)).mkdir(parents=True)
    return job_id, row.attempts


def test_pages_run_no_scripts_but_their_own_files(live: Live, model: str) -> None:
    for address in ("/", submitted(live, model), submitted(live, model, kind="comparison"), "/jobs/none"):
        answer = live.client.get(address)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(answer.text)
        assert not any(page.scripts), address
        assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
        loads = [value for tag, name, value in page.attributes if name in ("src", "href") and tag in ("script", "link")]
        assert all(value.startswith("/static/") or value == "data:," for value in loads), loads
        for value in loads:
            if value.startswith("/"):
                assert live.client.get(value).status_code == 200, value
    script = re.search("script-src ([^;]*);", POLICY)
    assert script is not None
    assert script[1] == "'self'"
    assert live.client.get("/static/api.py").status_code == 404


def test_every_field_has_a_label(live: Live, model: str) -> None:
    text = live.client.get("/").text
    page = Page(text)
    labelled = {value for tag, name, value in page.attributes if (tag, name) == ("label", "for")}
    fields = {value for tag, name, value in page.attributes if tag in ("input", "select") and name == "id"}
    assert fields == labelled
    assert text.count('type="checkbox"') + text.count('type="radio"') == text.count('<label class="option">')
    assert model in text


def test_a_job_is_queued_as_over_rest(live: Live, model: str) -> None:
    address = submitted(live, model, budget="macs=40%,params=60%", finetune_epochs="2", seed="7")
    job = live.job(address.rpartition("/")[2])
    assert (job["state"], job["spec"]["budget"], job["spec"]["policies"]) == (
        "queued", "macs=40%,params=60%", ["uniform", "exact"],
    )  # fmt: skip
    assert (job["spec"]["evaluations"], job["spec"]["finetune_epochs"], job["spec"]["seed"]) == (20, 2, 7)
    assert address in live.client.get("/").text
    page = live.client.get(address).text
    assert "this service takes no jobs from the queue" in page
    assert f'hx-get="{address}/live"' in page


def test_a_job_has_the_settings_that_are_folded_away(live: Live) -> None:
    files = {"report_dataset_file": ("report.npz", images_npz(60, seed=5)), "dataset_file": ("fit.npz", images_npz(90)),
             "model_file": ("open.onnx", tiny_onnx(seed=8))}  # fmt: skip
    folded = {"criterion": "l2", "normalization": "0.5/0.25", "include_residual": "1", "input_shape": "1,8,8"}
    answer = post(live, files=files, **folded)
    assert answer.status_code == 303, answer.text
    spec = live.job(answer.headers["location"].rpartition("/")[2])["spec"]
    assert (spec["criterion"], spec["normalization"], spec["include_residual"], spec["int8"]) == (
        "l2", "0.5/0.25", True, False,
    )  # fmt: skip
    assert spec["report_dataset"].startswith("dat_")
    assert spec["report_dataset"] != spec["dataset"]
    wrong = post(live, files=files, num_classes="ten")
    assert "expected a whole number above 0" in error_at(wrong.text, "num_classes")
    assert "expected channels,height,width" in error_at(post(live, files=files, input_shape="8").text, "model")


def test_a_comparison_is_queued_as_over_rest(live: Live, model: str) -> None:
    address = submitted(live, model, kind="comparison", seeds="4")
    assert address.startswith("/comparisons/cmp_")
    comparison = live.job(address.rpartition("/")[2], "comparisons")
    assert (comparison["spec"]["seeds"], comparison["spec"]["policies"]) == (
        4, ["random", "sensitivity", "uniform", "exact"],
    )  # fmt: skip
    assert "Comparison over 4 seeds" in live.client.get(address).text
    assert live.client.get(address.replace("comparisons", "jobs")).status_code == 404


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("budget", "half", "cannot read budget &#39;half&#39;"),
        ("budget", "energy=50%", "unknown budget quantity"),
        ("budget", "macs=0.01%", "smallest reachable value is"),
        ("budget", "latency=12ms", "latency"),
        ("device", "toaster", "unknown device"),
        ("evaluations", "many", "expected a whole number (found &#39;many&#39;)"),
        ("evaluations", "0", "expected at least 1 (found 0)"),
        ("seed", "-1", "expected at least 0 (found -1)"),
        ("seed", "9" * 5000, "expected a whole number"),
        ("model", "mdl_unknown", "expected the id of an uploaded model"),
        ("model", "", "expected a model: choose one, or upload a file"),
        ("dataset", "", "expected images"),
        ("report_dataset", "dat_unknown", "expected"),
        ("normalization", "half", "expected"),
        ("criterion", "l3", "unknown criterion"),
        ("policies", ["unform"], "Did you mean &#39;uniform&#39;?"),
        ("policies", [], "expected at least one policy"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(live: Live, model: str, field: str, typed: object, message: str) -> None:
    answer = post(live, **{"model": model, "seeds": "31", field: typed})
    assert answer.status_code == 422
    assert message in error_at(answer.text, field)
    assert 'value="31"' in answer.text  # what else was typed is still there
    assert (
        typed == ""
        or not isinstance(typed, str)
        or len(typed) > 100
        or field in ("model", "device", "report_dataset", "criterion")
        or (f'value="{typed}"' in answer.text)
    )


def test_seeds_are_looked_at_for_comparisons_alone(live: Live, model: str) -> None:
    assert post(live, model=model, seeds="x").status_code == 303
    answer = post(live, model=model, seeds="x", kind="comparison")
    assert "expected a whole number" in error_at(answer.text, "seeds")


def test_all_that_is_wrong_is_said_at_once(live: Live, model: str) -> None:
    files = {"model_file": ("broken.onnx", b"no model"), "dataset_file": ("pets.tar", b"no images")}
    answer = post(live, files=files, model=model, seed="x", budget="half")
    assert "broken.onnx" in error_at(answer.text, "model")
    assert ".zip or .npz" in error_at(answer.text, "dataset")
    assert "expected a whole number" in error_at(answer.text, "seed")
    assert "cannot read budget" in error_at(answer.text, "budget")


def test_uploads_that_can_be_used_are_kept_and_chosen(live: Live) -> None:
    files = {"model_file": ("mine.onnx", tiny_onnx(seed=3)), "dataset_file": ("mine.npz", images_npz(60, seed=3))}
    answer = post(live, files=files, budget="macs=0.01%")
    assert "smallest reachable value" in error_at(answer.text, "budget")
    chosen = re.findall(r'<option value="((?:mdl|dat)_[0-9a-f]+)" selected>(mine\.\w+)', answer.text)
    assert [name for _, name in chosen] == ["mine.onnx", "mine.npz"]
    again = post(live, model=chosen[0][0], dataset=chosen[1][0])
    assert again.status_code == 303, again.text


def test_forms_of_other_sites_are_refused(live: Live, model: str) -> None:
    own = {"origin": str(live.client.base_url).rstrip("/")}
    for headers, status in ((own, 303), ({"origin": "https://evil.example"}, 403), ({"origin": "null"}, 403)):
        sent = {"model_file": ("", b"")}
        answer = live.client.post("/jobs", data={**FORM, "model": model}, files=sent, headers=headers)
        assert answer.status_code == status, answer.text


def test_hostile_text_is_escaped(live: Live, model: str, records: Records) -> None:
    typed = post(live, model=model, budget=HOSTILE, device=HOSTILE, evaluations=HOSTILE, seed=HOSTILE)
    unknown = live.client.get("/jobs/<img src=x onerror=alert(1)>")
    job_id, attempt = run(live, records, model)
    error = {"type": HOSTILE, "detail": HOSTILE}
    records.move(job_id, JobState.FAILED, attempt=attempt, error=error)
    assert unknown.status_code == 404
    for text in (typed.text, unknown.text, live.client.get(f"/jobs/{job_id}").text, live.client.get("/jobs").text):
        page = Page(text)
        assert not [tag for tag, name, _ in page.attributes if tag == "img" or name.startswith("on")]
        assert not any(page.scripts)
    assert ("input", "value", HOSTILE) in Page(typed.text).attributes
    assert HOSTILE in Page(live.client.get(f"/jobs/{job_id}").text).text


def test_a_job_is_cancelled_and_cannot_be_twice_over(live: Live, model: str, records: Records) -> None:
    address = submitted(live, model)
    assert f'action="{address}/cancel"' in live.client.get(address).text
    for _ in range(2):
        answer = live.client.post(f"{address}/cancel")
        assert (answer.status_code, answer.headers["location"]) == (303, address)
    page = live.client.get(address).text
    assert "Cancelled; there are no files" in page
    assert "/cancel" not in page
    assert "hx-get" not in page
    job_id, attempt = run(live, records, model)
    records.move(job_id, JobState.FAILED, attempt=attempt, error={"type": "defect", "detail": "give it more memory"})
    assert "give it more memory" in live.client.get(f"/jobs/{job_id}").text
    refused = live.client.post(f"/jobs/{job_id}/cancel")
    assert refused.status_code == 409
    assert "only queued and running jobs can be cancelled" in Page(refused.text).text


def test_what_is_found_is_shown_while_it_is_found(live: Live, model: str, records: Records) -> None:
    job_id, attempt = run(live, records, model)
    address = f"/jobs/{job_id}"
    assert "Found so far" not in live.client.get(f"{address}/live").text
    log = live.settings.artifact_folder(job_id) / LIVE
    log.write_text(head_line() + trial_line(1, 0.9, policy=HOSTILE, probe=True))
    progress = {"stage": "search", "done": 1, "total": 20, "message": "candidates evaluated", "policy": "exact"}
    records.report(job_id, attempt, progress=progress)
    first = Page(live.client.get(f"{address}/live").text)
    assert "search, exact" in first.text
    assert HOSTILE in first.text
    log.write_text(head_line() + trial_line(1, 0.9, probe=True) + trial_line(2, 0.8))
    page = Page(live.client.get(f"{address}/live").text)
    page.check_tables()
    assert "80.0%" in page.text
    assert "200,000" in page.text  # what it costs, against the budget
    assert "206,336" in page.text
    assert len(page.scripts) == 1  # the figures, as data
    for element in ("trials-1", "progress", "kept"):
        assert ("div", "id", element) in page.attributes
    assert ("div", "hx-preserve", "true") in page.attributes
    records.move(job_id, JobState.FAILED, attempt=attempt, error={"type": "defect", "detail": "it broke"})
    assert live.client.get(f"{address}/live").headers["hx-refresh"] == "true"
    ended = Page(live.client.get(address).text)
    assert "80.0%" in ended.text
    assert not [name for _, name, _ in ended.attributes if name == "hx-trigger"]


def succeed(live: Live, records: Records, job_id: str, attempt: int, file: str, content: str) -> None:
    """Let a job end with one file."""
    (live.settings.artifact_folder(job_id) / file).write_text(content)
    artifact = ArtifactRow(job_id=job_id, name=file, sha256="ab" * 32, size_bytes=len(content), media_type="text/plain")
    assert records.move(job_id, JobState.SUCCEEDED, attempt=attempt, artifacts=[artifact])


def test_a_job_that_is_done_shows_what_its_report_shows(live: Live, model: str, records: Records) -> None:
    job_id, attempt = run(live, records, model)
    succeed(live, records, job_id, attempt, FILE, sample_result(warnings=(HOSTILE,)).model_dump_json())
    text = live.client.get(f"/jobs/{job_id}").text
    page = Page(text)
    page.check_tables()
    for expected in (HOSTILE, "Was the search worth it?", "Certificate (sensitivity)", "What would it cost at ...?"):
        assert expected in page.text, expected
    assert ("a", "href", f"/v1/jobs/{job_id}/artifacts/sensitivity/model.onnx") in page.attributes
    assert live.client.get(f"/v1/jobs/{job_id}/artifacts/{FILE}").status_code == 200
    refusal = live.client.get(f"/jobs/{job_id}/what-if", params={"quantity": "macs", "percent": "40"})
    assert refusal.status_code == 200
    assert "it can answer once all its policies have searched" in refusal.text


def test_results_of_another_version_are_left_to_their_report(live: Live, model: str, records: Records) -> None:
    job_id, attempt = run(live, records, model)
    succeed(live, records, job_id, attempt, FILE, '{"format": "autoprune-result/0"}')
    page = Page(live.client.get(f"/jobs/{job_id}").text)
    assert "Another version of autoprune wrote this result" in page.text
    assert ("a", "href", f"/v1/jobs/{job_id}/artifacts/report.html") in page.attributes


def test_a_comparison_that_is_done_shows_its_intervals(live: Live, model: str, records: Records) -> None:
    job_id = submitted(live, model, kind="comparison").rpartition("/")[2]
    while (row := records.claim()) is not None and row.id != job_id:
        records.move(row.id, JobState.CANCELLED)
    assert row is not None
    live.settings.artifact_folder(job_id).mkdir(parents=True)
    succeed(live, records, job_id, row.attempts, comparison_result.FILE, sample_comparison().model_dump_json())
    page = Page(live.client.get(f"/comparisons/{job_id}").text)
    page.check_tables()
    assert "Policies over seeds" in page.text
    assert "±" in page.text
    assert ("a", "href", f"/v1/comparisons/{job_id}/artifacts/{comparison_result.FILE}") in page.attributes


def test_forms_that_are_none_are_refused_with_a_page(live: Live) -> None:
    answer = live.client.post("/jobs", content=b"x", headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert "Back to jobs" in answer.text


def test_forms_that_are_too_large_are_answered_with_a_page(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False, max_model_bytes=50_000, max_dataset_bytes=50_000)
    with in_thread(settings) as live:
        for size in (200_000, 60_000):  # more than the request may have, and than the file may
            answer = post(live, files={"model_file": ("m.onnx", b"x" * size)})
            assert answer.status_code in (413, 422), answer.text
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["content-security-policy"] == POLICY
            assert "at most" in answer.text
        whole = post(live, files={"model_file": ("m.onnx", b"x" * 200_000)})

        def in_pieces() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="model_file"; filename="m.onnx"\r\n\r\n'
            yield from (b"x" * 10_000 for _ in range(30))
            yield b"\r\n--x--\r\n"

        headers = {"content-type": "multipart/form-data; boundary=x"}
        unannounced = live.client.post("/jobs", content=in_pieces(), headers=headers)
        assert (whole.status_code, unannounced.status_code) == (413, 413)
        assert "Back to jobs" in whole.text
        assert unannounced.text == whole.text
        assert (
            live.client.post("/v1/models", content=b"x" * 200_000).headers["content-type"] == "application/problem+json"
        )
