"""Whole networks are timed in onnxruntime, in turn."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoprune.errors import ModelError
from autoprune.latency_tables import measure as measure_module
from autoprune.latency_tables.measure import Latency, measure_onnx, measure_side_by_side
from autoprune.latency_tables.session import processor_name

SHAPE = (3, 32, 32)


def save_network(path: Path, convolutions: int, *, inputs: int = 1) -> Path:
    """Write an ONNX file of 3x3 convolutions with 32 channels and a dynamic batch."""
    rng = np.random.default_rng(0)
    names = [f"image{i}" for i in range(inputs)]
    weights, nodes, into, channels = [], [], names[0], 3
    for index in range(convolutions):
        weight = (0.1 * rng.standard_normal((32, channels, 3, 3))).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [into, f"w{index}"], [f"y{index}"], pads=[1, 1, 1, 1]))
        into, channels = f"y{index}", 32
    nodes.extend(helper.make_node("Identity", [name], [f"{name}_out"]) for name in names[1:])
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *SHAPE]) for name in names],
        [helper.make_tensor_value_info(into, TensorProto.FLOAT, ["n", 32, 32, 32])]
        + [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", *SHAPE]) for name in names[1:]],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_measurement_says_how_it_was_taken(tmp_path: Path) -> None:
    latency = measure_onnx(save_network(tmp_path / "a.onnx", 2), input_shape=SHAPE, batch=2, repeats=9, warmup=1)
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert (latency.repeats, latency.batch, latency.threads) == (9, 2, 1)
    assert latency.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert latency.device == processor_name() != ""
    assert Latency(**json.loads(json.dumps(latency.to_dict()))) == latency


def test_side_by_side_keeps_the_order_and_tells_large_from_small(tmp_path: Path) -> None:
    large, small = save_network(tmp_path / "large.onnx", 9), save_network(tmp_path / "small.onnx", 2)
    first, second, third = measure_side_by_side([large, small, large], input_shape=SHAPE, repeats=30)
    # Not medians: on a busy machine those of one and the same file differ several times.
    assert first.p10_ms > 2 * second.p10_ms
    assert 0.5 < first.p10_ms / third.p10_ms < 2
    assert first.repeats == second.repeats == third.repeats == 30


def test_time_that_other_work_had_the_processor_for_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_network(tmp_path / "a.onnx", 1)
    if time.get_clock_info("thread_time").resolution > 1e-6:
        pytest.skip("this system does not count the time of threads finely")
    real = measure_module.open_session

    class Delayed:
        def __init__(self, *args: object, **keywords: object) -> None:
            self.session = real(*args, **keywords)  # type: ignore[arg-type]

        def get_inputs(self) -> object:
            return self.session.get_inputs()

        def run(self, *args: object) -> object:
            time.sleep(0.05)
            return self.session.run(*args)

    monkeypatch.setattr(measure_module, "open_session", Delayed)
    assert measure_onnx(path, input_shape=SHAPE, repeats=5).median_ms < 40
    assert measure_onnx(path, input_shape=SHAPE, repeats=5, threads=2).median_ms > 50


def test_files_are_run_in_turn_each_warmed_up_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = onnxruntime.InferenceSession

    class Recorder:
        def __init__(self, path: str, *args: object, **keywords: object) -> None:
            self.name, self.session = Path(path).stem, real(path, *args, **keywords)

        def get_inputs(self) -> object:
            return self.session.get_inputs()

        def run(self, *args: object) -> object:
            order.append(self.name)
            return self.session.run(*args)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorder)
    paths = [save_network(tmp_path / f"{name}.onnx", 1) for name in "ab"]
    measure_side_by_side(paths, input_shape=SHAPE, repeats=6, warmup=2)
    assert order == ["a", "a", "b", "b"] * 8


def test_the_time_budget_leaves_five_rounds(tmp_path: Path) -> None:
    path = save_network(tmp_path / "a.onnx", 1)
    assert measure_onnx(path, input_shape=SHAPE, repeats=1000, time_budget_s=0).repeats == 5
    assert measure_onnx(path, input_shape=SHAPE, repeats=3, time_budget_s=0).repeats == 3


def test_several_threads(tmp_path: Path) -> None:
    assert measure_onnx(save_network(tmp_path / "a.onnx", 2), input_shape=SHAPE, threads=2, repeats=5).threads == 2


def test_files_that_cannot_be_measured(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match=f"{path.name}: onnxruntime cannot load"):
            measure_onnx(path, input_shape=SHAPE)
    with pytest.raises(ModelError, match=r"does not run on images float32 \(1, 4, 32, 32\)"):
        measure_onnx(save_network(tmp_path / "a.onnx", 1), input_shape=(4, 32, 32))
    with pytest.raises(ModelError, match="one input, found 2: image0, image1"):
        measure_onnx(save_network(tmp_path / "two.onnx", 1, inputs=2), input_shape=SHAPE)


def test_a_device_needs_no_torch() -> None:
    code = "import sys, autoprune.latency_tables.measure; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
