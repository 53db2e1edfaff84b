"""Models of many units: valid files, one kernel per fused unit, refusals."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.session import open_session
from autoprune.latency_tables.unit import ACTIVATIONS, Unit
from autoprune.latency_tables.unit_onnx import UnitModel, chain_model, place_of, unit_model, working_bytes


def conv(c_in: int, c_out: int, *, size: int = 10, kernel: int = 1, **more: object) -> Unit:
    settings = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "activation": "relu", "add": False, **more}
    half = kernel // 2
    return Unit(
        "conv", (kernel, kernel), padding=(half,) * 4, input_hw=(size, size), c_in=c_in, c_out=c_out, **settings
    )  # type: ignore[arg-type]


def flat(op: str, channels: int, kernel: int, stride: int, **more: object) -> Unit:
    pads = (0, 0, 0, 0) if kernel < 3 else (1, 1, 1, 1)
    steps = (stride, stride)
    return Unit(op, (kernel, kernel), steps, (1, 1), pads, 1, (10, 10), channels, channels, **more)  # type: ignore[arg-type]


LINEAR = Unit("linear", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1), 32, 10)

EVERY_KIND = [
    conv(3, 16, kernel=3, stride=(2, 2)),
    conv(16, 24, kernel=3, dilation=(2, 2)),
    conv(16, 32, groups=2),
    conv(13, 7),
    *(conv(16, 16, activation=kind) for kind in ACTIVATIONS),
    *(conv(16, 16, activation=kind, add=True) for kind in ACTIVATIONS),
    flat("depthwise", 16, 3, 2, activation="relu6"),
    flat("pool", 16, 2, 2),
    flat("pool", 16, 0, 1),
    *(flat("elementwise", 16, 1, 1, activation=kind) for kind in ACTIVATIONS),
    flat("elementwise", 16, 1, 1, add=True),
    LINEAR,
]


INT8 = [
    (conv(16, 24, kernel=3, stride=(2, 2)), ["QLinearConv"]),
    (conv(13, 7, activation="relu6"), ["QLinearConv"]),
    (conv(16, 32, groups=2, activation="none"), ["QLinearConv"]),
    (conv(16, 16, kernel=3, add=True), ["QLinearConv", "QLinearAdd"]),
    (conv(16, 16, activation="silu"), ["QLinearConv", "QLinearSigmoid", "QLinearMul"]),
    (conv(16, 16, activation="leakyrelu"), ["QLinearConv", "QLinearLeakyRelu"]),
    (flat("depthwise", 16, 3, 2, activation="relu6"), ["QLinearConv"]),
    (flat("pool", 16, 2, 2), ["NhwcMaxPool"]),
    (flat("pool", 16, 0, 1), ["QLinearGlobalAveragePool"]),
    (flat("elementwise", 16, 1, 1, add=True), ["QLinearAdd"]),
    (LINEAR, ["QGemm"]),
]


def kernels(model: UnitModel, folder: Path) -> dict[int, list[str]]:
    """Run a model once; return the kernels of each unit."""
    session = open_session(model.data, threads=1, profile_prefix=folder / "profile")
    session.run(None, dict(model.feeds))
    events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[int, list[str]] = {}
    for event in events:
        place = place_of(event["name"]) if event["name"].endswith("_kernel_time") else None
        if place is not None and place[1] == "core":
            found.setdefault(place[0], []).append(event["args"]["op_name"])
    return found


def test_files_of_all_kinds_of_units_pass_the_full_check_and_run() -> None:
    model = unit_model(EVERY_KIND, batch=2)
    onnx.checker.check_model(onnx.load_from_string(model.data), full_check=True)
    outputs = open_session(model.data, threads=1).run(None, dict(model.feeds))
    assert len(outputs) == len(EVERY_KIND)
    for unit, output in zip(EVERY_KIND, outputs, strict=True):
        assert output.shape[:2] == (2, unit.c_out)
        assert np.isfinite(output).all()
        assert np.abs(output).min() > 1e-30, f"{unit}: zeros and denormal numbers take another time"


def test_int8_files_of_all_kinds_of_units_pass_the_full_check_and_run() -> None:
    model = unit_model(EVERY_KIND, batch=2, precision="int8")
    onnx.checker.check_model(onnx.load_from_string(model.data), full_check=True)
    outputs = open_session(model.data, threads=1).run(None, dict(model.feeds))
    for unit, output in zip(EVERY_KIND, outputs, strict=True):
        assert output.dtype == np.uint8
        assert (output.shape[0], output.shape[-1]) == (2, unit.c_out)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # in float, between the pairs
    plain = onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    for one, other in zip(plain.run(None, dict(model.feeds)), outputs, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_int8_units_are_the_integer_kernels_of_the_runtime(tmp_path: Path) -> None:
    model = unit_model([unit for unit, _ in INT8], precision="int8")
    session = open_session(model.data, threads=1, profile_prefix=tmp_path / "profile")
    session.run(None, dict(model.feeds))
    events = [each for each in json.loads(Path(session.end_profiling()).read_text()) if "op_name" in each["args"]]
    if any(event["args"]["op_name"] == "Transpose" for event in events):
        pytest.skip("this runtime does not lay out images with their channels last")
    assert kernels(model, tmp_path) == {index: expected for index, (_, expected) in enumerate(INT8)}


def test_other_precisions_are_refused() -> None:
    with pytest.raises(LatencyTableError, match="expected one of fp32, int8; found 'int4'"):
        unit_model([LINEAR], precision="int4")


def test_units_compute_what_their_operators_say() -> None:
    model = unit_model([conv(16, 24, kernel=3, activation="relu6", add=True), flat("depthwise", 16, 3, 2), LINEAR])
    expected = ReferenceEvaluator(onnx.load_from_string(model.data)).run(None, dict(model.feeds))
    found = open_session(model.data, threads=1).run(None, dict(model.feeds))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_convolution_with_addition_and_activation_is_one_kernel(tmp_path: Path) -> None:
    units = [
        conv(16, 16, kernel=3, add=True),
        conv(16, 32, activation="relu6"),
        flat("depthwise", 16, 3, 1, activation="relu"),
    ]
    found = kernels(unit_model(units), tmp_path)
    if any("Add" in names for names in found.values()):
        pytest.skip("this processor has no blocked layout, or its blocks are wider")
    assert found == {0: ["Conv"], 1: ["Conv"], 2: ["Conv"]}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_chain_runs_one_kernel_after_the_other(tmp_path: Path, precision: str) -> None:
    model = chain_model(conv(16, 16, kernel=3), 5, precision=precision)
    onnx.checker.check_model(onnx.load_from_string(model.data), full_check=True)
    assert {unit: len(names) for unit, names in kernels(model, tmp_path).items()} == dict.fromkeys(range(5), 1)


def test_names_of_units_are_found_in_names_of_fused_nodes() -> None:
    assert place_of("u12.core.act.out_nchwc_kernel_time") == (12, "core")
    assert place_of("u3.core_kernel_time") == (3, "core")
    assert place_of("_inlfunc_HardSwish_u4.core.act.out_x_kernel_time") == (4, "core")
    assert place_of("u12.feed.pool.out_nchwc_kernel_time") == (12, "feed")
    assert place_of("u5.core_token_21_kernel_time") == (5, "core")
    assert place_of("u5.core.act.dequantize.0/duplicated_kernel_time") == (5, "core")
    assert place_of("ReorderInput_token_4_kernel_time") is None


def test_files_need_no_new_runtime() -> None:
    model = onnx.load_from_string(unit_model([LINEAR]).data)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    assert onnxruntime.InferenceSession(unit_model([LINEAR]).data, providers=["CPUExecutionProvider"]).get_inputs()


def test_working_bytes_count_weights_and_images() -> None:
    assert working_bytes(conv(16, 32, kernel=3)) == 4 * (16 * 32 * 9 + 16 * 100 + 32 * 100)
    assert working_bytes(LINEAR) == 4 * (320 + 32 + 10)


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (conv(0, 8), "at least one channel"),
        (conv(12, 10, groups=4), "multiples of the 4 groups"),
        (flat("pool", 8, 2, 2).with_channels(8, 16), "as many channels"),
        (conv(8, 8, size=1, kernel=3, dilation=(4, 4)), "its output is empty"),
    ],
)
def test_units_that_cannot_be_run_are_refused(unit: Unit, reason: str) -> None:
    with pytest.raises(LatencyTableError, match=reason):
        unit_model([unit])
