"""The page in a real browser: from an upload to a network that runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from autoprune.formats.load import load_network
from autoprune.latency_tables.table import Calibration
from autoprune.service.devices.tables import TableStore
from autoprune.service.results.live_search import LIVE
from autoprune.service.settings import Settings
from tests.components import missing, require_module
from tests.made_up_tables import made_up_table, staircase_us
from tests.service.live_service import Live, images_npz, in_process, tiny_onnx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: A job may wait for the one before it, on a busy machine.
DONE_MS = 240_000

#: So many plans that a search is not over before a page has seen it.
MODEL = tiny_onnx(width=32, convolutions=7)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    require_module("playwright")
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        missing("the browser Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, browser: "Browser") -> Iterator[Live]:
    """A service that runs jobs, and has a latency table of the model."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "model.onnx").write_bytes(MODEL)
    network = load_network(folder / "model.onnx")
    settings = Settings(folder / "home")
    calibration = Calibration(1.1, 5.0, 0.02, 0.04, ((100.0, 102.0),))
    TableStore(settings.home).add(made_up_table(network, staircase_us, calibration))
    with in_process(settings) as (service, _):
        yield service


@pytest.fixture
def page(browser: "Browser", live: Live) -> Iterator["Page"]:
    """A page that loads from nowhere else, and whose console stays clean."""
    context = browser.new_context(base_url=str(live.client.base_url), viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(30_000)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [text for text in complaints if "status of 422" not in text] == []  # a form that is wrong is no complaint
    assert [url for url in asked if not url.startswith((str(live.client.base_url), "data:", "blob:"))] == []


def fill(page: "Page", *, budget: str, policies: list[str], evaluations: int) -> None:
    """Fill in the form but for model and images."""
    page.get_by_label("Limits").fill(budget)
    boxes = page.get_by_role("group", name="Policies").get_by_role("checkbox")
    for box in boxes.all():
        box.set_checked(box.get_attribute("value") in policies)
    page.get_by_label("Evaluations").fill(str(evaluations))


def start(page: "Page") -> None:
    """Send the form."""
    page.get_by_role("button", name="Start").click()


def test_from_an_upload_to_a_network_that_runs(page: "Page", live: Live, tmp_path: Path) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    model = {"name": "walk.onnx", "mimeType": "application/octet-stream", "buffer": MODEL}
    images = {"name": "walk.npz", "mimeType": "application/octet-stream", "buffer": images_npz(400)}
    page.get_by_label("Upload a model").set_input_files(model)
    page.get_by_label("Upload images").set_input_files(images)
    fill(page, budget="latency=60%", policies=["uniform", "random"], evaluations=800)
    start(page)  # a budget of latency without a device
    page.get_by_role("alert").wait_for()
    assert "latency" in page.locator("#budget-error").inner_text()
    assert page.evaluate("document.activeElement.id") == "problems"
    assert page.get_by_label("Limits").input_value() == "latency=60%"
    assert "walk.onnx" in page.get_by_label("Model", exact=True).locator("option:checked").inner_text()
    assert "walk.npz" in page.get_by_label("Dataset").locator("option:checked").inner_text()
    page.get_by_label("Device").select_option("toaster")
    start(page)
    page.wait_for_url("**/jobs/job_*")
    page.get_by_role("heading", name="Found so far").wait_for(timeout=DONE_MS)
    page.locator("#progress .main-svg").first.wait_for()
    plot = page.locator("#progress").element_handle()
    assert "search" in page.locator("#live").inner_text()
    page.get_by_role("link", name="Download ONNX").wait_for(timeout=DONE_MS)  # the page comes anew by itself
    assert plot is not None
    assert page.locator("#kept .main-svg").first.is_visible()
    assert "Certificate" in page.locator("main").inner_text()
    assert not list(live.settings.home.rglob(LIVE))  # the log of a job that is done is gone
    with page.expect_download() as download:
        page.get_by_role("link", name="Download ONNX").click()
    file = tmp_path / "pruned.onnx"
    download.value.save_as(file)
    session = onnxruntime.InferenceSession(file)
    images_in = np.zeros((3, 1, 8, 8), np.float32)
    (scores,) = session.run(None, {session.get_inputs()[0].name: images_in})
    assert scores.shape == (3, 10)
    assert file.stat().st_size < len(MODEL)


def test_other_budgets_are_asked_for_with_the_slider(page: "Page", live: Live) -> None:
    done = next(job for job in live.client.get("/v1/jobs?state=succeeded").json())
    page.goto(f"/jobs/{done['id']}")
    answer = page.locator("#what-if-answer")
    answer.get_by_text("within macs=50%").wait_for()
    slider = page.get_by_label("Share of the unpruned network")
    for _ in range(10):
        slider.press("ArrowRight")
    answer.get_by_text("within macs=60%").wait_for()
    assert page.locator("#what-if-share").inner_text() == "60%"
    assert "with neither the refit nor the fine-tuning" in answer.inner_text()
    slider.fill("5")
    answer.get_by_text("smallest reachable value").wait_for()
    page.get_by_label("Limit", exact=True).select_option("latency")
    answer.get_by_text("latency").first.wait_for()


def test_a_job_is_cancelled_while_it_runs(page: "Page", live: Live) -> None:
    model = live.post_model(MODEL, "walk.onnx").json()["id"]
    live.submit(model=model, dataset="digits", budget="macs=50%", policies=["random"], evaluations=100_000)
    page.goto("/")
    page.locator(".jobs li", has=page.get_by_text("running")).first.wait_for(timeout=DONE_MS)  # the list keeps up
    page.locator(".jobs").get_by_role("link").first.click()
    page.get_by_role("heading", name="Found so far").wait_for(timeout=DONE_MS)
    layers = page.locator("#live").get_by_text("Layers of every group")
    layers.click()
    before = page.locator("#live").inner_text()
    page.wait_for_function(
        "was => (document.getElementById('live')?.innerText ?? was) !== was", arg=before, timeout=DONE_MS
    )
    # what a reader opened stays open, and keeps the focus, when the page is brought up to date
    assert page.locator("#live details[open]").count() == 1
    assert page.evaluate("document.activeElement.textContent") == "Layers of every group"
    page.get_by_text("Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel this job").click()
    page.get_by_text("Cancelled; there are no files").wait_for(timeout=DONE_MS)
    assert page.locator("#live[hx-trigger]").count() == 0
    assert page.locator("#progress .main-svg").first.is_visible()  # what it had found by then


def test_a_comparison_is_started_and_watched(page: "Page", live: Live) -> None:
    live.post_model(MODEL, "walk.onnx")
    page.goto("/")
    page.get_by_role("radio", name="Comparison").check()
    page.get_by_label("Seeds of a comparison").fill("2")
    page.get_by_label("Dataset").select_option("digits")
    fill(page, budget="macs=50%", policies=["uniform", "exact"], evaluations=12)
    start(page)
    page.wait_for_url("**/comparisons/cmp_*")
    page.get_by_role("heading", name="Policies over seeds").wait_for(timeout=DONE_MS)
    text = page.locator("main").inner_text()
    assert "±" in text
    assert page.get_by_role("link", name="comparison.csv").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a phone would scroll sideways"
