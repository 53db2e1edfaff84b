"""The report: valid, self-contained, escaped, and honest about who won."""

import json
import re
from pathlib import Path

import pytest
from plotly.graph_objects import Figure

from autoprune.service.reports.job_report import figures, render_report, write_report
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import duration, noise, verdicts
from tests.service.html_page import HOSTILE, Page
from tests.service.result_samples import sample_result, scores


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(sample_result(warnings=("mind the splits",))))


def test_is_valid_and_self_contained(page: Page) -> None:
    page.check_self_contained()
    assert ("html", "lang", "en") in page.attributes


def test_tables_are_regular(page: Page) -> None:
    page.check_tables()


def test_says_what_a_reader_needs(page: Page) -> None:
    for expected in (
        "digits_cnn.onnx pruned to macs=50%", "uniform", "sensitivity", "206,336", "412,672", "mind the splits",
        "block2.conv1", "frozen: feeds the network's output", "residual stream, left whole (opt-in)",
        "sensitivity ends 2.0 points above uniform", "0.061 ms", "load_pruned", "sensitivity/model.onnx", "95.0%",
    ):  # fmt: skip
        assert expected in page.text, expected
    for kind in ("kept", "trials-1", "progress"):
        assert ("div", "id", kind) in page.attributes


def test_plots_are_valid_figures_for_every_policy() -> None:
    for element, _, _, figure in figures(sample_result()):
        themed = json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(figure)))
        drawn = Figure(themed, skip_invalid=False)
        names = {trace.name for trace in drawn.data}
        assert {"uniform", "sensitivity"} <= names, element
    trials = next(figure for element, _, _, figure in figures(sample_result()) if element == "trials-1")
    assert {"sensitivity, probes", "unpruned"} <= {trace["name"] for trace in trials["data"]}  # type: ignore[attr-defined]
    assert "budget 50%" in json.dumps(trials["layout"])


def test_escapes_hostile_names() -> None:
    text = json.dumps(sample_result(model=HOSTILE, warnings=(HOSTILE,)).model_dump())
    hostile = json.dumps(HOSTILE)[1:-1]
    text = text.replace('"sensitivity"', f'"{hostile}"').replace("block2.conv1", hostile).replace("digits", hostile)
    page = Page(render_report(JobResult.model_validate_json(text)))
    assert not [tag for tag, name, _ in page.attributes if tag == "img" or name.startswith("on")]
    assert len(page.scripts) == 3  # figures, plotly, ours
    plots = json.loads(page.scripts[0])
    assert "<img" not in json.dumps(plots)
    assert HOSTILE in page.text


def test_says_when_the_search_did_not_win() -> None:
    result = sample_result()
    uniform, sensitivity = result.outcomes
    swapped = [
        uniform.model_copy(update={"report_finetuned": sensitivity.report_finetuned}),
        sensitivity.model_copy(update={"report_finetuned": uniform.report_finetuned}),
    ]
    lost = verdicts(result.model_copy(update={"outcomes": swapped}))
    assert lost[0].startswith("sensitivity did not beat uniform: it is 2.0 points worse")
    assert "can be chance" in lost[0]
    clear = [uniform, sensitivity.model_copy(update={"report_finetuned": scores(0.99, 2690)})]
    assert verdicts(result.model_copy(update={"outcomes": clear}))[0].startswith(
        "sensitivity beat uniform by 6.0 points"
    )
    assert "not shown to be better" in verdicts(result)[0]
    even = [uniform, sensitivity.model_copy(update={"report_finetuned": uniform.report_finetuned})]
    assert "both end at 93.0%" in verdicts(result.model_copy(update={"outcomes": even}))[0]
    alone = result.model_copy(update={"outcomes": [sensitivity]})
    assert "Uniform pruning was not run" in verdicts(alone)[0]
    assert "Uniform pruning was not run" in render_report(alone)


def test_works_without_labels_finetuning_and_latency(tmp_path: Path) -> None:
    data = sample_result().model_dump()

    def unlabelled(scores: dict[str, object]) -> dict[str, object]:
        return {**scores, "top1": None, "top5": None, "loss": None}

    for name in ("search", "report"):
        data[name] = unlabelled(data[name])
    for found in data["outcomes"]:
        found.update(search=unlabelled(found["search"]), report=unlabelled(found["report"]))
        found.update(search_finetuned=None, report_finetuned=None)
        found["certificate"]["latency"] = None
    write_report(JobResult.model_validate(data), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "agreement with the unpruned network" in page.text
    assert "Latency was not measured" in page.text
    assert "fine-tuned, report split" not in page.text


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.44, "0.4 s"), (12.3, "12 s"), (185, "3 min 05 s"), (59.9, "1 min 00 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_noise_shrinks_with_the_number_of_images() -> None:
    assert noise(0.9, 0.9, 100) == pytest.approx(0.0832, abs=1e-4)
    assert noise(0.9, 0.9, 10_000) == pytest.approx(0.00832, abs=1e-5)
