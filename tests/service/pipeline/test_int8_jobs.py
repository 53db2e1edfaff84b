"""Jobs that export int8: what that costs is told, and a budget of latency speaks of the int8 files."""

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest

from autoprune.errors import LatencyTableError
from autoprune.files import file_sha256
from autoprune.formats.load import load_network
from autoprune.latency_tables.measure import Latency
from autoprune.latency_tables.table import Calibration
from autoprune.latency_tables.unit import Unit
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.reading import read_as
from tests.made_up_tables import made_up_table


class Toaster:
    """A device on which an int8 file takes half of a float32 file's time, and a pruned one these shares of that."""

    def __init__(self, *shares: float) -> None:
        self.shares = list(shares)
        self.timed: list[list[str]] = []

    def __call__(self, paths: Sequence[Path], *, input_shape: tuple[int, ...], threads: int = 1) -> list[Latency]:
        share = self.shares.pop(0) if len(self.shares) > 1 else self.shares[0]
        kinds = ["int8" if _is_int8(path) else "fp32" for path in paths]
        self.timed.append(kinds)
        times = [{"int8": 0.5, "fp32": 1.0}[kind] * (share if index else 1.0) for index, kind in enumerate(kinds)]
        return [Latency(each, 0.9 * each, 1.1 * each, 10, 1, threads, "runtime", "toaster") for each in times]


def _is_int8(path: Path) -> bool:
    """Tell whether a file holds integer layers."""
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


def _table(model: Path, precision: str, folder: Path) -> Path:
    """Write the made-up table of a toaster into a folder."""

    def time_us(unit: Unit) -> float:
        return 1.0 + unit.c_in * unit.c_out / 100

    path = folder / f"{precision}.json"
    made_up_table(load_network(model), time_us, Calibration(1.0, 5.0, 0.02, 0.04), precision).save(path)
    return path


def _spec(model: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model),
        "dataset": "digits",
        "budget": "latency=60%",
        "policies": ["uniform"],
        "evaluations": 3,
        "int8": True,
    }
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path, Toaster]:
    folder, toaster = tmp_path_factory.mktemp("job"), Toaster(0.63, 0.59)
    table = _table(model, "int8", tmp_path_factory.mktemp("table"))
    return run_job(_spec(model, device=str(table)), folder, timer=toaster), folder, toaster


def test_the_files_that_the_budget_speaks_of_are_those_of_int8(job: tuple[JobResult, Path, Toaster]) -> None:
    result, folder, toaster = job
    (outcome,) = result.outcomes
    assert toaster.timed == [["int8", "int8"], ["int8", "int8"], ["int8", "int8", "fp32"]]
    assert len(outcome.trials) == 2, "the first candidate was too slow in int8"
    latency = json.loads((folder / outcome.artifacts["certificate"]).read_text())["latency"]
    assert latency["precision"] == "int8"
    assert latency["share_of_limit"] == pytest.approx(0.59 / 0.6)
    assert latency["pruned_fp32"]["p10_ms"] == pytest.approx(2 * latency["pruned"]["p10_ms"])


def test_the_accuracy_of_int8_files_stands_beside_that_of_float32(job: tuple[JobResult, Path, Toaster]) -> None:
    result, folder, _ = job
    (outcome,) = result.outcomes
    assert outcome.int8 is not None
    assert result.int8 is not None
    for found in (outcome.int8, result.int8):
        assert found.calibration_images == 256
        assert found.search.top1 == pytest.approx(found.search_fp32.top1, abs=0.05)
        assert found.search.images == result.search.images
        assert found.report.images == result.report.images
    assert result.int8.search_fp32.top1 == result.search.top1
    file = folder / outcome.artifacts["int8"]
    assert _is_int8(file)
    certificate = json.loads((folder / outcome.artifacts["certificate"]).read_text())
    assert certificate["int8"]["onnx_sha256"] == file_sha256(file)
    assert certificate["int8"]["search"] == outcome.int8.search.model_dump()
    page = (folder / "report.html").read_text()
    assert "uniform in int8, calibrated on 256 fit images" in page
    assert "pruned, int8 file, report split" in page


def test_tables_of_another_precision_than_the_job_exports_are_refused(model: Path, tmp_path: Path) -> None:
    for precision, int8, expected in (("fp32", True, "int8"), ("int8", False, "fp32")):
        spec = _spec(model, device=str(_table(model, precision, tmp_path)), int8=int8)
        with pytest.raises(LatencyTableError, match=f"expected a table of {expected} .* found {precision}"):
            run_job(spec, tmp_path / "job")


def test_int8_needs_no_budget_of_latency(model: Path, tmp_path: Path) -> None:
    result = run_job(_spec(model, budget="macs=50%", evaluations=1), tmp_path)
    latency = result.outcomes[0].certificate["latency"]
    assert isinstance(latency, dict)
    assert latency["precision"] == "int8"
    assert set(latency) == {"precision", "pruned", "unpruned", "pruned_fp32", "speedup"}


def test_the_networks_that_a_comparison_delivers_have_int8_files(model: Path, tmp_path: Path) -> None:
    toaster = Toaster(0.59)
    values = _spec(model, device=str(_table(model, "int8", tmp_path)), evaluations=6).model_dump()
    result = run_comparison(read_as(ComparisonSpec, {**values, "seeds": 1}), tmp_path, timer=toaster).delivered
    policies = len(result.outcomes)
    assert policies == 3
    assert toaster.timed == [["int8", "int8"]] * policies + [["int8"] * (1 + policies) + ["fp32"] * policies]
    assert result.int8 is not None
    for outcome in result.outcomes:
        assert outcome.int8 is not None
        assert _is_int8(tmp_path / outcome.artifacts["int8"])
    page = (tmp_path / "report.html").read_text()
    assert "random in int8, calibrated on 256 fit images" in page
