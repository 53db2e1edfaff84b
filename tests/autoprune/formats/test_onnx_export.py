"""The ONNX writer: onnxruntime computes what PyTorch computes, whatever the layer, operator set and batch."""

import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from autoprune.costs.cost_model import cost_model
from autoprune.errors import ExportError, UnsupportedOperatorError
from autoprune.formats.onnx_export import OPSETS, export_onnx, onnx_bytes
from autoprune.formats.onnx_import import import_onnx
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import (
    LAYERS,
    Add,
    Concat,
    Constant,
    Div,
    MatMul,
    Mean,
    Mul,
    Pad,
    Permute,
    Reshape,
    Slice,
    Sub,
)
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.pruning.surgery import prune
from autoprune.zoo.registry import build
from tests.corpus import NETWORKS, input_shape
from tests.oracles import random_plan, randomise

TOLERANCE = 1e-5


def _run(path: Path, images: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.numpy()})[0]


def _check(network: Network, path: Path, opset: int) -> onnx.ModelProto:
    """Export, and compare onnxruntime with PyTorch at batch sizes 1 and 3."""
    export_onnx(network.module, path, input_shape=network.input_shape, opset=opset)
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        images = torch.randn(batch, *network.input_shape, generator=generator)
        with torch.no_grad():
            expected = network.module(images).numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(_run(path, images), expected, atol=TOLERANCE * scale, rtol=0)
    return onnx.load(path)


def _random_affine(layer: nn.Module) -> nn.Module:
    """Give a normalisation weights that are not ones and zeros."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


#: Layers applied to a convolution's output of shape (8, 9, 7), by name.
ONE_INPUT: dict[str, nn.Module] = {
    "conv": nn.Conv2d(8, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2),
    "transposed": nn.ConvTranspose2d(8, 6, 3, 2, 1, (1, 0), groups=2, bias=False),
    "transposed dilated": nn.ConvTranspose2d(8, 4, 3, 1, 2, dilation=2),
    "linear on planes": nn.Linear(7, 5),
    "linear without bias": nn.Linear(7, 5, bias=False),
    "prelu": nn.PReLU(8), "one slope": nn.PReLU(),
    "relu": nn.ReLU(), "relu6": nn.ReLU6(), "leaky": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7),
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"), "hardswish": nn.Hardswish(), "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.5, 0.3), "softplus": nn.Softplus(), "softplus beta": nn.Softplus(2.5),
    "mish": nn.Mish(), "identity": nn.Identity(),
    "max": nn.MaxPool2d(3, 2, 1), "max ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "max ceil padded": nn.MaxPool2d(3, 3, 1, ceil_mode=True), "max dilated": nn.MaxPool2d(2, 1, 1, dilation=2),
    "max ceil unused": nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "avg": nn.AvgPool2d(2), "avg padded": nn.AvgPool2d(3, 2, 1), "avg not counted": nn.AvgPool2d(3, 2, 1, False, False),
    "avg ceil": nn.AvgPool2d(2, 2, ceil_mode=True), "avg ceil padded": nn.AvgPool2d(3, 3, 1, ceil_mode=True),
    "avg ceil wide": nn.AvgPool2d(4, 3, 1, ceil_mode=True),
    "avg ceil not counted": nn.AvgPool2d(4, 3, 1, ceil_mode=True, count_include_pad=False),
    "avg divisor": nn.AvgPool2d((2, 3), 2, 1, ceil_mode=True, divisor_override=4),
    "adaptive avg 1": nn.AdaptiveAvgPool2d(1), "adaptive avg even": nn.AdaptiveAvgPool2d((3, 7)),
    "adaptive avg": nn.AdaptiveAvgPool2d((4, 3)), "adaptive avg half": nn.AdaptiveAvgPool2d((None, 2)),
    "adaptive avg larger": nn.AdaptiveAvgPool2d((12, 8)),
    "adaptive max 1": nn.AdaptiveMaxPool2d(1), "adaptive max even": nn.AdaptiveMaxPool2d((3, 1)),
    "adaptive max": nn.AdaptiveMaxPool2d((4, 3)),
    "nearest": nn.Upsample(scale_factor=2), "nearest factors": nn.Upsample(scale_factor=(2.0, 3.0)),
    "nearest size": nn.Upsample((18, 21)), "nearest odd size": nn.Upsample((13, 10)),
    "nearest down": nn.Upsample((4, 3)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"), "bilinear size": nn.Upsample((13, 10), mode="bilinear"),
    "bilinear fraction": nn.Upsample(scale_factor=1.5, mode="bilinear"),
    "bilinear corners": nn.Upsample((13, 20), mode="bilinear", align_corners=True),
    "mean": Mean((2, 3), False), "mean kept": Mean((1,), True),
    "softmax": nn.Softmax(1), "softmax last": nn.Softmax(-1),
    "layer norm": nn.LayerNorm(7), "layer norm planes": nn.LayerNorm((9, 7), elementwise_affine=False),
    "layer norm no bias": nn.LayerNorm(7, bias=False),
    "group norm": nn.GroupNorm(2, 8), "group norm plain": nn.GroupNorm(4, 8, affine=False),
    "instance norm": nn.GroupNorm(8, 8), "batch norm": nn.BatchNorm2d(8, eps=1e-3),
    "reshape": Reshape((-1, 4, 126)), "permute": Permute((0, 3, 1, 2)),
    "slice": Slice(1, 2, 7), "slice steps": Slice(2, 1, 9, 3),
    "pad": Pad(((0, 0), (2, 1), (0, 3), (1, 0))), "pad value": Pad(((0, 0), (0, 0), (1, 1), (1, 1)), -2.0),
}  # fmt: skip


def _one_input(name: str) -> Network:
    torch.manual_seed(0)
    layer = ONE_INPUT[name]
    builder = NetworkBuilder("image", (4, 9, 7))
    x = builder.add(nn.Conv2d(4, 8, 3, padding=1), builder.input, name="stem")
    x = builder.add(nn.SiLU(), x, name="between")  # so that a batch norm is not folded
    if isinstance(layer, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d):
        layer = _random_affine(layer)
    return randomise(builder.finish(builder.add(layer, x, name="layer")), 1)


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("name", ONE_INPUT)
def test_every_layer(name: str, opset: int, tmp_path: Path) -> None:
    _check(_one_input(name), tmp_path / "net.onnx", opset)


def _two_inputs() -> Network:
    """A network with all layers that take several inputs, or none."""
    torch.manual_seed(0)
    builder = NetworkBuilder("pixels", (3, 6, 6))
    add = builder.add
    a = add(nn.Conv2d(3, 8, 1), builder.input, name="a")
    b = add(nn.BatchNorm2d(8), add(nn.Conv2d(3, 8, 1, bias=False), builder.input, name="b"), name="b_bn")
    x = add(Mul(), add(Add(), a, b, name="add"), add(Constant(torch.rand(8, 1, 1)), name="scale"), name="mul")
    x = add(Sub(), x, add(nn.AdaptiveAvgPool2d(1), a, name="gate"), name="sub")
    x = add(Div(), x, add(Constant(torch.tensor(3.0)), name="three"), name="div")
    x = add(Concat(1), x, a, x, name="cat")
    x = add(MatMul(), x, add(Permute((0, 1, 3, 2)), x, name="turned"), name="product")
    return builder.finish(add(nn.Linear(24 * 36, 5), add(Reshape((-1, 24 * 36)), x, name="flat"), name="head"))


@pytest.mark.parametrize("opset", OPSETS)
def test_layers_with_several_inputs(opset: int, tmp_path: Path) -> None:
    _check(randomise(_two_inputs(), 2), tmp_path / "net.onnx", opset)


def test_every_layer_type_is_covered() -> None:
    covered = {type(layer) for layer in ONE_INPUT.values()} | {type(layer) for layer in _two_inputs().layers().values()}
    assert covered >= set(LAYERS)


def test_the_file_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = _check(_two_inputs(), path, 17)
    assert (model.producer_name, model.opset_import[0].version) == ("autoprune", 17)
    assert [node.name for node in model.graph.node][:3] == ["a", "b", "add"]
    assert "b.weight" in {weight.name for weight in model.graph.initializer}
    assert [node.op_type for node in model.graph.node][-1] == "Gemm"
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [image.name, logits.name] == ["image", "logits"]
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, 6, 6]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 5]
    assert os.listdir(tmp_path) == ["net.onnx"]


@pytest.mark.parametrize("last", [None, "input"])
def test_outputs_that_are_used_again_or_are_inputs(last: str | None, tmp_path: Path) -> None:
    builder = NetworkBuilder("image", (3, 4, 4))
    x = builder.input
    if last is None:
        x = builder.add(nn.ReLU(), x, name="logits")
        builder.add(nn.ReLU(), x, name="unused")
    _check(builder.finish(x), tmp_path / "net.onnx", 17)


def test_the_network_is_not_changed(tmp_path: Path) -> None:
    network = randomise(_two_inputs(), 3)
    before = network.fingerprint()
    _check(network, tmp_path / "net.onnx", 17)
    network.module.train()
    export_onnx(network.module, tmp_path / "net.onnx", input_shape=network.input_shape)
    assert network.module.get_submodule("b_bn").training
    network.module.eval()
    assert network.fingerprint() == before


ZOO: dict[str, tuple[int, int, int]] = {
    "resnet20_cifar": (3, 32, 32), "vgg11_bn": (3, 32, 32), "mobilenet_v1": (3, 32, 32), "mobilenet_v2": (3, 32, 32),
    "resnet18": (3, 32, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, tmp_path: Path) -> None:
    network = randomise(build(name, num_classes=10, input_shape=ZOO[name]), 4)
    model = _check(network, tmp_path / "net.onnx", 17)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_kinds_come_back_from_their_files(name: str, tmp_path: Path) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    path = tmp_path / "net.onnx"
    for opset in (13, 20):
        _check(network, path, opset)
        again = import_onnx(path)
        images = torch.randn(2, *network.input_shape)
        with torch.no_grad():
            torch.testing.assert_close(again.module(images), network.module(images), atol=1e-5, rtol=1e-5)
        assert _cost(again) == _cost(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_unfolded_files_keep_batch_norms_and_the_names_of_layers(name: str, tmp_path: Path) -> None:
    network = randomise(trace(NETWORKS[name](), input_shape(name)), 7)
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_bytes(network.module, input_shape=network.input_shape, fold=False))
    again = import_onnx(path)
    images = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.module(images)
        torch.testing.assert_close(again.module(images), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(_run(path, images), expected.numpy(), atol=1e-4)
    weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d
    names = [{key for key, layer in each.layers().items() if isinstance(layer, weighted)} for each in (again, network)]
    assert names[0] == names[1]


def _cost(network: Network) -> tuple[int, int]:
    cost = cost_model(network, find_groups(network), ()).cost(())
    return cost["macs"], cost["params"]  # not bytes: imported layers may have longer names


def test_a_pruned_network_comes_back_from_its_file(tmp_path: Path) -> None:
    network = randomise(build("resnet20_cifar"), 5)
    groups = find_groups(network)
    module = prune(network, groups, random_plan(groups.prunable(include_residual=True), 6))
    path = tmp_path / "pruned.onnx"
    export_onnx(module, path, input_shape=network.input_shape, opset=20)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = module(images)
        torch.testing.assert_close(import_onnx(path).module(images), expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(_run(path, images), expected.numpy(), atol=1e-4)


def _softplus() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Softplus(threshold=2))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"opset": 12}, ExportError, "13 to 20"),
        ({"opset": 21}, ExportError, "13 to 20"),
        ({"output_name": "image"}, ExportError, "different names"),
        ({}, UnsupportedOperatorError, "layer '1' cannot be exported to ONNX: softplus with threshold 2"),
    ],
)
def test_errors_leave_nothing_behind(
    settings: dict[str, object], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    network = trace(_softplus(), (4, 5, 5))
    with pytest.raises(kind, match=message):
        export_onnx(network.module, tmp_path / "net.onnx", input_shape=(4, 5, 5), **settings)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_an_interrupted_export_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(_two_inputs().module, path, input_shape=(3, 6, 6))
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert path.read_bytes() == b"old"


def test_export_is_fast(tmp_path: Path) -> None:
    network = build("resnet56_cifar")
    start = time.perf_counter()
    export_onnx(network.module, tmp_path / "net.onnx", input_shape=network.input_shape)
    assert time.perf_counter() - start < 3
