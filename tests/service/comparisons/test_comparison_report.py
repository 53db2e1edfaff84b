"""The report of a comparison: valid, self-contained, escaped, complete."""

import json
import re

import pytest
from plotly.graph_objects import Figure

from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.comparisons.report import figures, render_report
from tests.service.comparison_samples import sample_comparison
from tests.service.html_page import HOSTILE, Page


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(sample_comparison()))


def test_is_self_contained_and_regular(page: Page) -> None:
    page.check_self_contained()
    page.check_tables()


def test_says_what_a_reader_needs(page: Page) -> None:
    for expected in (
        "digits_cnn.onnx pruned to macs=50%: policies compared", "4 policies over 3 seeds", "87.0% ± 2.5",
        "exact beats uniform by 7.0 points", "+7.0 ± 2.5", "exact - uniform", "1 of 2 (50%)", "At equal time",
        "sensitivity/model.onnx", "exact, seed 2", "McNemar p",
    ):  # fmt: skip
        assert expected in page.text, expected
    for kind in ("by-evaluations", "by-seconds", "front-2", "kept"):
        assert ("div", "id", kind) in page.attributes


def test_plots_are_valid_figures_for_every_policy() -> None:
    for element, _, _, figure in figures(sample_comparison()):
        themed = json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(figure)))
        drawn = Figure(themed, skip_invalid=False)
        assert {"uniform", "random", "sensitivity", "exact"} <= {trace.name for trace in drawn.data}, element


def test_escapes_hostile_names() -> None:
    hostile = json.dumps(HOSTILE)[1:-1]
    text = sample_comparison().model_dump_json().replace('"exact"', f'"{hostile}"').replace("block2.conv1", hostile)
    page = Page(render_report(ComparisonResult.model_validate_json(text)))
    assert not [tag for tag, name, _ in page.attributes if tag == "img" or name.startswith("on")]
    assert "<img" not in json.dumps(json.loads(page.scripts[0]))
    assert HOSTILE in page.text


def test_without_times_there_is_no_plot_of_them() -> None:
    page = Page(render_report(sample_comparison(pace=None)))
    assert ("div", "id", "by-seconds") not in page.attributes
    assert "Who leads at equal time is not known" in page.text
