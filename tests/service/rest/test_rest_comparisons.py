"""Comparisons over REST: in the queue of jobs, under an address of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.settings import Settings
from tests.service.live_service import Live, in_process, in_thread, tiny_onnx

QUICK = {"dataset": "digits", "budget": "macs=50%", "policies": ["exact"], "seeds": 2, "evaluations": 5,
         "fit_images": 200, "search_images": 100, "report_images": 100}  # fmt: skip


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that accepts jobs and runs none."""
    with in_thread(Settings(tmp_path_factory.mktemp("waiting") / "home", run_jobs=False)) as service:
        yield service


def submit(live: Live, **changes: object) -> dict[str, Any]:
    """Submit a comparison that must be accepted."""
    model = live.post_model(tiny_onnx()).json()["id"]
    answer = live.client.post("/v1/comparisons", json={"model": model, **QUICK, **changes})
    assert answer.status_code == 201, answer.text
    comparison: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/comparisons/{comparison['id']}"
    return comparison


def test_a_comparison_goes_through_in_the_service_s_own_processes(tmp_path: Path) -> None:
    with in_process(Settings(tmp_path / "home")) as (live, _):
        comparison = submit(live)
        done = live.finished(comparison["id"], 240, "comparisons")
        assert (done["state"], done["error"], done["progress"]["stage"]) == ("succeeded", None, "done")
        base = f"/v1/comparisons/{comparison['id']}/artifacts"
        names = [entry["name"] for entry in live.client.get(base).json()]
        assert {"comparison.json", "comparison.csv", "report.html", "exact/model.onnx", "uniform/plan.json"} <= set(
            names
        )
        assert not [name for name in names if "journal" in name]
        text = live.client.get(f"{base}/comparison.json").text
        result = ComparisonResult.model_validate_json(text)
        assert [(policy.policy, len(policy.seeds)) for policy in result.policies] == [
            ("uniform", 0), ("random", 2), ("sensitivity", 0), ("exact", 2),
        ]  # fmt: skip
        assert str(live.settings.home) not in text
        assert live.client.get(f"{base}/report.html").headers["content-type"].startswith("text/html")
        assert live.client.post(f"/v1/comparisons/{comparison['id']}/cancel").status_code == 409
        missing = live.client.get(f"{base}/none.json")
        assert (missing.status_code, f"GET {base} lists them" in missing.json()["detail"]) == (404, True)


def test_comparisons_and_jobs_are_told_apart(waiting: Live) -> None:
    comparison = submit(waiting, policies=["exact", "amc"])
    assert comparison["id"].startswith("cmp_")
    assert comparison["spec"]["policies"] == ["uniform", "random", "sensitivity", "exact", "amc"]
    assert comparison["spec"]["seeds"] == 2
    job = waiting.submit(model=comparison["spec"]["model"], dataset="digits", budget="macs=50%")
    for address, own, other in (("comparisons", comparison, job), ("jobs", job, comparison)):
        assert [each["id"] for each in waiting.client.get(f"/v1/{address}?state=queued").json()] == [own["id"]]
        assert waiting.client.get(f"/v1/{address}/{own['id']}").json() == own
        for answer in (
            waiting.client.get(f"/v1/{address}/{other['id']}"),
            waiting.client.get(f"/v1/{address}/{other['id']}/artifacts"),
            waiting.client.get(f"/v1/{address}/{other['id']}/artifacts/report.html"),
            waiting.client.post(f"/v1/{address}/{other['id']}/cancel"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:autoprune:problem:not-found-error")
            assert f"GET /v1/{address} lists them" in answer.json()["detail"]
    assert waiting.client.get(f"/v1/comparisons/{comparison['id']}/artifacts/report.html").status_code == 409
    for _ in range(2):
        answer = waiting.client.post(f"/v1/comparisons/{comparison['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"seeds": 0}, "body.seeds: expected at least 1 (found 0)"),
        ({"seeds": "3"}, "body.seeds: expected a whole number, without quotes (found '3')"),
        ({"policies": ["unform"]}, "Did you mean 'uniform'?"),
        ({"budget": "macs=0.01%"}, "smallest reachable value is"),
        ({"dataset": "dat_unknown"}, "expected 'digits' or the id of an uploaded dataset"),
        ({"reconstruction": False}, "needs reconstruction"),
        ({"colour": "red"}, "body.colour"),
    ],
)
def test_what_cannot_succeed_is_refused(waiting: Live, setting: dict[str, object], message: str) -> None:
    model = waiting.post_model(tiny_onnx()).json()["id"]
    answer = waiting.client.post("/v1/comparisons", json={"model": model, **QUICK, **setting})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert message in answer.json()["detail"]


def test_the_document_describes_comparisons_with_examples(waiting: Live) -> None:
    document = waiting.client.get("/openapi.json").json()
    spec = document["components"]["schemas"]["ComparisonSpec"]
    assert spec["properties"]["seeds"]["default"] == 3
    model = waiting.post_model(tiny_onnx()).json()["id"]
    example = {**spec["examples"][0], "model": model}
    assert waiting.client.post("/v1/comparisons", json=example).status_code == 201
    paths = [path for path in document["paths"] if path.startswith("/v1/comparisons")]
    assert len(paths) == 6
    for path in paths:
        for operation in document["paths"][path].values():
            assert operation["summary"]
            problems = [answer for status, answer in operation["responses"].items() if status in ("404", "409")]
            assert all("application/problem+json" in answer["content"] for answer in problems)
    assert json.dumps(document).count("cmp_") >= 1
