"""The commands ``device ...`` on stored tables and kits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import LatencyTableError, UnknownNameError
from autoprune.latency_tables.table import Calibration, LatencyTable
from autoprune.service.devices import tables as device_tables
from autoprune.service.devices.tables import TableStore, find_table, table_id
from tests.service import commands
from tests.service.live_service import tiny_onnx
from tests.service.table_samples import CONV, altered, sample_table


def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Run a device command in this process; return what it wrote on stdout and stderr."""
    return commands.run("device", *arguments, code=code)


@pytest.fixture(autouse=True)
def _nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store hold what a test puts there, and nothing else."""
    monkeypatch.setattr(device_tables, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    path = tmp_path / "latency-table.json"
    sample_table().save(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_onnx(image=(3, 8, 8), width=16))
    return path


def test_import_list_show(table_file: Path) -> None:
    assert "no latency tables yet" in run("list")[0]
    stdout, _ = run("import", table_file, "--device", "phone-1", "--json")
    view = json.loads(stdout)
    assert (view["device"], view["units"], view["calibrations"]["net"]["error"]) == ("phone-1", 4, 0.03)
    assert json.loads(run("list", "--json")[0]) == [view]
    assert json.loads(run("show", "phone-1", "--json")[0]) == view
    assert json.loads(run("show", view["id"], "--json")[0]) == view
    assert json.loads(run("show", table_file, "--json")[0]) == view
    shown, _ = run("show", "phone-1")
    for text in ("Cortex-X4", "onnxruntime 1.27.0", "mean error 3.0%", "conv 3x3 @14x14 +relu", "8 to 16", "256.0"):
        assert text in shown
    assert "phone-1" in run("list")[0]


def test_a_second_table_is_merged_or_replaces(tmp_path: Path, table_file: Path) -> None:
    run("import", table_file)
    later = tmp_path / "later.json"
    sample_table(factor=2.0, widths=(16, 24), measured_at="2026-02-01T00:00:00+00:00").save(later)
    assert "merged into" in run("import", later)[0]
    times = {(unit.c_in, unit.c_out): timing.median_us for unit, timing in find_table("phone-1").entries.items()}
    assert times == {
        (8, 8): 64.0, (8, 16): 128.0, (16, 8): 128.0, (16, 16): 512.0,
        (16, 24): 768.0, (24, 16): 768.0, (24, 24): 1152.0,
    }  # fmt: skip
    assert "replaces" in run("import", later, "--replace")[0]
    assert len(find_table("phone-1").entries) == 4


def test_a_table_whose_calibration_has_no_points_is_drawn(tmp_path: Path) -> None:
    table = sample_table()
    path = tmp_path / "bare.json"
    table.with_calibrations({"net": Calibration(1.0, 5.0, 0.03, 0.06)}).save(path)
    run("show", path, "--report", tmp_path / "table.html")
    assert "network net, 3.0% off" in (tmp_path / "table.html").read_text()


def test_diff_and_merge(tmp_path: Path, table_file: Path) -> None:
    other = tmp_path / "other.json"
    sample_table(factor=2.0, widths=(16, 24)).save(other)
    diff = json.loads(run("diff", table_file, other, "--json")[0])
    assert [(change["ratio"], change["unit"]["c_in"]) for change in diff["changed"]] == [(2.0, 16)]
    assert (len(diff["added"]), len(diff["removed"]), diff["conditions"]) == (3, 3, "")
    text, _ = run("diff", table_file, other)
    assert "1 units with other times, 3 added, 3 removed" in text
    assert "2.00x" in text
    merged = tmp_path / "new" / "merged.json"
    run("merge", table_file, other, "-o", merged)
    assert len(LatencyTable.load(merged).entries) == 7
    foreign = tmp_path / "foreign.json"
    sample_table("phone-2").save(foreign)
    assert "conditions differ: device 'phone-1' against 'phone-2'" in run("diff", table_file, foreign)[0]
    assert "only tables of the same conditions" in run("merge", table_file, foreign, "-o", merged, code=2)[1]
    assert "two tables or more" in run("merge", table_file, "-o", merged, code=2)[1]


def test_tables_that_are_refused(tmp_path: Path, table_file: Path) -> None:
    def refused(content: bytes, *options: str) -> str:
        path = tmp_path / "bad.json"
        path.write_bytes(content)
        _, stderr = run("import", path, *options, code=2)
        assert stderr.startswith("error: ")
        assert "Traceback" not in stderr
        return " ".join(stderr.split())

    good = table_file.read_bytes()
    assert "cut off or damaged" in refused(good[: len(good) // 2])
    assert "altered after it was written" in refused(good.replace(b"64.0", b"32.0"))
    assert "found NaN" in refused(good.replace(b"64.0", b"NaN"))
    assert "above 0" in refused(altered(sample_table(), lambda data: data["units"][0]["times"][0].__setitem__(2, -1)))
    assert "expected version 1" in refused(altered(sample_table(), lambda data: data.update(version=7)))
    assert "expected a table of the device 'pi', found one of 'phone-1'" in refused(good, "--device", "pi")
    assert json.loads(run("list", "--json")[0]) == []
    assert "found no readable file" in run("import", tmp_path / "none.json", code=2)[1]


def test_calibrations_that_go_with_a_merge_are_told(tmp_path: Path, table_file: Path) -> None:
    later = tmp_path / "later.json"
    slower = sample_table(factor=2.0, measured_at="2026-02-01T00:00:00+00:00")
    replace(slower, calibrations={"other": slower.calibrations["net"]}).save(later)
    assert "warning" not in run("import", table_file)[1]
    assert "known about a network measured earlier no longer holds" in " ".join(run("import", later)[1].split())
    assert "warning" in run("merge", table_file, later, "-o", tmp_path / "merged.json")[1]
    assert "warning" not in run("import", table_file, "--replace")[1]


def test_find_table_takes_names_ids_and_files(
    tmp_path: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TableStore()
    one, four = sample_table(threads=1), sample_table(threads=4)
    for table in (one, four, sample_table("pi.5")):
        store.add(table)
    assert store.devices() == ("phone-1", "pi.5")
    assert find_table("phone-1", threads=4) == four
    assert find_table("phone-1", threads=1) == find_table(table_id(one.conditions)) == one
    assert find_table(str(table_file)) == one
    assert find_table("pi.5").conditions.device == "pi.5"
    monkeypatch.chdir(tmp_path)
    assert find_table("latency-table.json") == one
    with pytest.raises(LatencyTableError, match="found fp32, 1 threads; fp32, 4 threads"):
        find_table("phone-1", threads=2)
    quantized = sample_table(precision="int8", measured_at="2027-01-01T00:00:00+00:00")
    store.add(quantized)
    assert find_table("phone-1", precision="int8") == quantized
    assert find_table("phone-1", precision="fp32", threads=1) == one
    for name in ("pi.5", str(table_file), table_id(one.conditions)):
        with pytest.raises(LatencyTableError, match=r"expected a table of int8 .* if it exports int8, with --int8"):
            find_table(name, precision="int8")
    with pytest.raises(UnknownNameError, match="Did you mean 'phone-1'"):
        find_table("phone1")
    for trick in ("..", "../x", "a/../../b", "/etc/passwd", "x\x00y", "", "ü"):
        with pytest.raises(LatencyTableError):
            find_table(trick)


def test_shipped_tables_are_found_after_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = sample_table("shipped-1")
    shipped.save(tmp_path / f"{table_id(shipped.conditions)}.json")
    monkeypatch.setattr(device_tables, "SHIPPED", tmp_path)
    assert find_table("shipped-1") == shipped
    own = sample_table("shipped-1", factor=2.0)
    TableStore().add(own)
    assert find_table("shipped-1") == own


def test_pack_writes_a_kit_into_an_empty_folder(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "kit"
    for _ in range(2):  # an older kit is replaced
        facts = json.loads(run("pack", model, "-o", folder, "--networks", "3", "--device", "pi", "--json")[0])
        assert (facts["units"], facts["networks"]) == (3, 4)
    assert json.loads((folder / "work.json").read_text())["device"] == "pi"
    assert "python measure.pyz --device pi\n" in (folder / "README.txt").read_text()
    (folder / "holiday.jpg").write_bytes(b"x")
    assert "found holiday.jpg in it" in run("pack", model, "-o", folder, code=2)[1]
    assert "a device's name" in run("pack", model, "-o", tmp_path / "k", "--device", "a/b", code=2)[1]
    assert "expected a time" in run("pack", model, "-o", tmp_path / "k", "--time-budget", "soon", code=2)[1]
    assert "up to 48 letters" in run("pack", model, "-o", tmp_path / "k", "--device", "a" * 49, code=2)[1]
    assert "--max-ratio" in run("pack", model, "-o", tmp_path / "k", "--max-ratio", "1", code=2)[1]
    assert not (tmp_path / "k").exists()


def test_tables_of_int8_are_measured_beside_those_of_fp32(tmp_path: Path, model: Path) -> None:
    options = ("--device", "here", "--networks", "3", "--time-budget", "1s")
    facts = json.loads(run("measure", model, *options, "--precision", "int8", "--json")[0])
    assert find_table("here", precision="int8").conditions.precision == "int8"
    assert find_table(facts["id"]).calibrations
    with pytest.raises(LatencyTableError, match="expected a table of fp32"):
        find_table("here", precision="fp32")
    run("pack", model, "-o", tmp_path / "kit", *options, "--precision", "int8")
    assert json.loads((tmp_path / "kit" / "work.json").read_text())["conditions"]["precision"] == "int8"
    assert "must be fp32 or int8" in run("pack", model, "-o", tmp_path / "k", "--precision", "int4", code=2)[1]


def test_measure_keeps_a_table_of_this_machine(tmp_path: Path, model: Path) -> None:
    output = tmp_path / "table.json"
    stdout, stderr = run(
        "measure", model, "--device", "here", "--networks", "3", "--time-budget", "2s", "-o", output, "--json"
    )
    facts = json.loads(stdout)
    assert "100%" in stderr
    assert find_table("here") == LatencyTable.load(output)
    assert find_table(facts["id"]).calibrations.keys() == find_table("here").calibrations.keys() != set()
    assert {unit.op for unit in find_table("here").entries} == {"conv", "pool", "linear"}
    assert CONV not in find_table("here").entries
