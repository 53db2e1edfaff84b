"""int8 files: integer weights per channel, outputs close to float32, the same file for the same images."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from autoprune.errors import ExportError
from autoprune.formats.onnx_export import export_onnx
from autoprune.formats.onnx_int8 import quantize_onnx
from autoprune.formats.onnx_run import run_onnx
from autoprune.network.network import Network
from autoprune.zoo.registry import build
from tests.oracles import randomise


@pytest.fixture(scope="module")
def network() -> Network:
    return randomise(build("resnet20_cifar"), seed=0)


@pytest.fixture(scope="module")
def images(network: Network) -> np.ndarray:
    return torch.randn(12, *network.input_shape, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture(scope="module")
def files(network: Network, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("int8")
    export_onnx(network.module, folder / "fp32.onnx", input_shape=network.input_shape)
    quantize_onnx(folder / "fp32.onnx", folder / "int8.onnx", images)
    return folder / "fp32.onnx", folder / "int8.onnx"


def test_weights_are_int8_with_a_scale_per_channel_and_activations_uint8(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[1])
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 19
    for node in convolutions:
        weight, scale, _ = (tensors[name] for name in makers[node.input[1]].input)
        assert weight.data_type == TensorProto.INT8
        assert list(scale.dims) == [weight.dims[0]]
        stored = makers[node.input[0]]
        assert stored.op_type == "DequantizeLinear"
        assert tensors[stored.input[2]].data_type == TensorProto.UINT8
    assert not any(node.op_type == "Relu" for node in model.graph.node)
    assert files[1].stat().st_size < 0.4 * files[0].stat().st_size


def test_outputs_are_close_to_those_of_float32(files: tuple[Path, Path], images: np.ndarray) -> None:
    expected, found = (run_onnx(path, images, batch_size=5) for path in files)
    assert expected.shape == found.shape == (12, 10)
    assert np.abs(found - expected).mean() < 0.1 * np.abs(expected - expected.mean(1, keepdims=True)).mean()


def test_the_same_images_give_the_same_file(files: tuple[Path, Path], images: np.ndarray, tmp_path: Path) -> None:
    quantize_onnx(files[0], tmp_path / "again.onnx", images)
    assert (tmp_path / "again.onnx").read_bytes() == files[1].read_bytes()
    assert not onnx.load(files[1]).metadata_props
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


def test_what_cannot_be_quantized_is_refused(files: tuple[Path, Path], images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected images"):
        quantize_onnx(files[0], tmp_path / "none.onnx", images[:0])
    shape = ["batch", 3, 32, 32]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("HardSwish", ["image"], ["logits"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(ExportError, match=r"quantises no layer of x\.onnx"):
        quantize_onnx(tmp_path / "x.onnx", tmp_path / "none.onnx", images)
    assert not (tmp_path / "none.onnx").exists()
