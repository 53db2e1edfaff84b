"""Imported networks compute what the original modules and onnxruntime compute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.formats.onnx_import import import_onnx
from autoprune.network.layers import LAYERS
from tests.corpus import EXPORTERS, NETWORKS, Exporter, export, exported, images, input_shape

Array = NDArray[Any]


def in_onnxruntime(path: Path, x: Tensor) -> Tensor:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    size = feed.shape[0] if isinstance(feed.shape[0], int) else len(x)
    parts = [session.run(None, {feed.name: part.numpy()})[0] for part in x.split(size)]
    return torch.from_numpy(np.concatenate(parts))


def agree(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_corpus_network_is_imported_exactly(name: str, exporter: Exporter) -> None:
    path, x = exported(name, exporter), images(name)
    network = import_onnx(path)
    with torch.no_grad():
        wanted, found = NETWORKS[name]()(x), network.module(x)
    assert wanted.std() > 1e-3
    assert agree(found, wanted)
    assert agree(found, in_onnxruntime(path, x))
    assert network.input_shape == input_shape(name)
    assert network.input_name == "image"
    assert all(type(layer) in LAYERS for layer in network.layers().values())
    assert not network.module.training


@pytest.mark.parametrize("name", ["resnet20_cifar10_jpeg", "resnet56_cifar10_jpeg", "vgg11_bn_cifar10_jpeg"])
def test_reference_network_is_imported_exactly(shared: Path, name: str) -> None:
    path = shared / "models" / f"{name}.onnx"
    network = import_onnx(path)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert agree(network.module(x), in_onnxruntime(path, x))
    assert network.output_shape == (10,)


def test_layers_are_named_after_their_weights() -> None:
    torchscript = import_onnx(exported("resnet_padded", "torchscript")).layers()
    dynamo = import_onnx(exported("resnet_padded", "dynamo")).layers()
    for name in ("conv1", "layer1.0.conv1", "layer3.1.conv2", "linear"):
        assert isinstance(torchscript[name], nn.Conv2d | nn.Linear)
        assert isinstance(dynamo[name], nn.Conv2d | nn.Linear)
    assert isinstance(torchscript["layer2.0.bn1"], nn.BatchNorm2d)


def test_import_is_deterministic() -> None:
    path = exported("unet", "dynamo")
    assert import_onnx(path).fingerprint() == import_onnx(path).fingerprint()


@pytest.mark.parametrize("name", ["vit_mean", "vit_token", "convnext"])
def test_gelu_and_layer_norm_are_recognised(name: str) -> None:
    for exporter in EXPORTERS:
        kinds = [type(layer) for layer in import_onnx(exported(name, exporter)).layers().values()]
        assert kinds.count(nn.GELU) == 2
        assert kinds.count(nn.LayerNorm) == sum(isinstance(m, nn.LayerNorm) for m in NETWORKS[name]().modules())
        linear = [m for m in import_onnx(exported(name, exporter)).layers().values() if isinstance(m, nn.Linear)]
        assert all(layer.bias is not None for layer in linear)


def test_a_weight_used_twice_becomes_two_layers(tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    path = tmp_path / "shared.onnx"
    export(nn.Sequential(conv, nn.ReLU(), conv), (3, 8, 8), path, "torchscript")
    convs = [layer for layer in import_onnx(path).layers().values() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 2
    assert torch.equal(convs[0].weight, convs[1].weight)
    assert convs[0].weight.data_ptr() != convs[1].weight.data_ptr()


def test_attention_with_the_batch_second(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.attention = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).permute(2, 0, 1)
            mixed: Tensor = self.attention(tokens, tokens, tokens)[0]
            return mixed.mean(0)

    module, x = Net().eval(), torch.randn(3, 3, 16, 16)
    for dynamic in (True, False):
        path = tmp_path / f"{dynamic}.onnx"
        export(module, (3, 16, 16), path, "torchscript", dynamic_batch=dynamic)
        with torch.no_grad():
            assert agree(import_onnx(path).module(x), module(x))


def write(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[Any], opset: int) -> None:
    """Write a graph from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param="n")
    onnx.save(model, path)


def random(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


#: One node per case on images of 4x7x9: operator, its other inputs (None: left out), attributes, operator set.
FORMS: dict[str, tuple[str, list[Array | None], dict[str, Any], int]] = {
    "conv dilated, strided": (
        "Conv", [random(6, 2, 3, 2), random(6)], {"group": 2, "strides": [2, 1], "dilations": [1, 3]}, 13,
    ),
    "conv asymmetric": ("Conv", [random(6, 4, 3, 3)], {"pads": [0, 1, 2, 0]}, 17),
    "conv same upper": ("Conv", [random(6, 4, 4, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 17),
    "conv same lower": ("Conv", [random(6, 4, 2, 4)], {"auto_pad": "SAME_LOWER"}, 17),
    "conv valid": ("Conv", [random(6, 4, 2, 4)], {"auto_pad": "VALID"}, 17),
    "transposed": (
        "ConvTranspose", [random(4, 3, 3, 3), random(3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, 17,
    ),
    "transposed asymmetric": ("ConvTranspose", [random(4, 3, 3, 3)], {"strides": [2, 3], "pads": [0, 1, 2, 1]}, 17),
    "transposed grouped": ("ConvTranspose", [random(4, 3, 2, 2)], {"group": 2, "dilations": [2, 1]}, 17),
    "transposed to a shape": (
        "ConvTranspose", [random(4, 3, 3, 3)],
        {"strides": [2, 2], "output_shape": [14, 18], "auto_pad": "SAME_UPPER"}, 17,
    ),
    "batch norm": ("BatchNormalization", [random(4), random(4), random(4), np.abs(random(4))], {"epsilon": 0.01}, 15),
    "instance norm": ("InstanceNormalization", [random(4), random(4)], {"epsilon": 0.01}, 17),
    "layer norm of a plane": ("LayerNormalization", [random(7, 9), random(7, 9)], {"axis": 2}, 17),
    "layer norm without bias": ("LayerNormalization", [random(9)], {"epsilon": 0.1}, 17),
    "max pool asymmetric": ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 17),
    "max pool ceil": ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 17),
    "max pool same": ("MaxPool", [], {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 17),
    "max pool dilated": ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 3]}, 17),
    "average pool": ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 17),
    "average pool counting": (
        "AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 17,
    ),
    "average pool asymmetric": (
        "AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "strides": [2, 1]}, 17,
    ),
    "average pool asymmetric counting": (
        "AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1}, 17
    ),
    "global max": ("GlobalMaxPool", [], {}, 13),
    "global average": ("GlobalAveragePool", [], {}, 13),
    "mean by attribute": ("ReduceMean", [], {"axes": [-1, 2], "keepdims": 0}, 13),
    "mean by input": ("ReduceMean", [ints(1)], {"keepdims": 1}, 18),
    "sum": ("ReduceSum", [ints(2, 3)], {"keepdims": 0}, 13),
    "maximum": ("ReduceMax", [], {"axes": [2, 3], "keepdims": 0}, 13),
    "clip six": ("Clip", [floats(0).reshape(()), floats(6).reshape(())], {}, 13),
    "clip below": ("Clip", [floats(0).reshape(())], {}, 13),
    "clip both": ("Clip", [floats(-0.3).reshape(()), floats(0.4).reshape(())], {}, 13),
    "clip above": ("Clip", [None, floats(0.2).reshape(())], {}, 13),
    "leaky": ("LeakyRelu", [], {"alpha": 0.3}, 16),
    "prelu per channel": ("PRelu", [random(4, 1, 1)], {}, 16),
    "prelu shared": ("PRelu", [random(1)], {}, 16),
    "elu": ("Elu", [], {"alpha": 0.7}, 13),
    "hard sigmoid": ("HardSigmoid", [], {}, 13),
    "hard sigmoid of torch": ("HardSigmoid", [], {"alpha": 1 / 6}, 13),
    "hard swish": ("HardSwish", [], {}, 14),
    "mish": ("Mish", [], {}, 18),
    "softplus": ("Softplus", [], {}, 13),
    "gelu": ("Gelu", [], {}, 20),
    "gelu by tanh": ("Gelu", [], {"approximate": "tanh"}, 20),
    "softmax": ("Softmax", [], {"axis": 1}, 13),
    "negative": ("Neg", [], {}, 13),
    "square": ("Pow", [floats(2).reshape(())], {}, 15),
    "cube": ("Pow", [ints(3).reshape(())], {}, 15),
    "dropout": ("Dropout", [floats(0.5).reshape(())], {}, 13),
    "identity": ("Identity", [], {}, 16),
    "flatten": ("Flatten", [], {}, 13),
    "transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}, 13),
    "slice": ("Slice", [ints(-4, 1), ints(100, -1), ints(2, 3), ints(1, 2)], {}, 13),
    "gather one": ("Gather", [ints(-1).reshape(())], {"axis": 1}, 13),
    "gather many": ("Gather", [ints(3, 0, 1)], {"axis": 1}, 13),
    "gather evenly": ("Gather", [ints(0, 2, 4)], {"axis": 2}, 13),
    "pad": ("Pad", [ints(0, 1, 0, 2, 0, 0, 1, 0), floats(0.5).reshape(())], {}, 13),
    "pad two axes": ("Pad", [ints(1, 2, 0, 1), None, ints(3, 1)], {}, 18),
    "pad negative": ("Pad", [ints(0, 0, -1, 2, 0, 0, 0, -3)], {}, 13),
    "expand": ("Expand", [ints(2, 4, 7, 9)], {}, 13),
    "concat a constant": ("Concat", [random(1, 4, 7, 2)], {"axis": 3}, 13),
    "squeeze nothing": ("Squeeze", [], {}, 13),
    "unsqueeze": ("Unsqueeze", [ints(1, -1)], {}, 13),
    "depth to space": ("DepthToSpace", [], {"blocksize": 2}, 13),
    "depth to space, channels first": ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}, 13),
    "matmul": ("MatMul", [random(9, 5)], {}, 13),
    "nearest": (
        "Resize", [None, floats(1, 1, 2, 3)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 13,
    ),
    "nearest, default": ("Resize", [None, floats(1, 1, 2, 3)], {}, 13),
    "nearest to a size": (
        "Resize", [None, None, ints(10, 5)],
        {"axes": [2, 3], "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 18,
    ),
    "linear": ("Resize", [None, floats(1, 1, 2, 1.5)], {"mode": "linear"}, 13),
    "linear, corners": (
        "Resize", [None, floats(1, 1, 2, 3)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, 13,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_operator_form_agrees_with_onnxruntime(form: str, tmp_path: Path) -> None:
    op_type, others, attributes, opset = FORMS[form]
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(others)]
    constants = {name: value for name, value in zip(names, others, strict=True) if value is not None}
    batch = 2 if op_type == "Expand" else "n"
    x = torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(0))
    if op_type == "Concat":
        constants["c0"] = np.repeat(constants["c0"], 2, 0)
        batch = 2
    path = tmp_path / "form.onnx"
    write(
        path, [helper.make_node(op_type, ["x", *names], ["y"], "it", **attributes)], constants, [batch, 4, 7, 9], opset
    )
    network = import_onnx(path)
    with torch.no_grad():
        assert agree(network.module(x), in_onnxruntime(path, x))
        assert len(network.module(torch.cat([x, x, x]))) == 6


REFUSED: dict[str, tuple[str, list[Array | None], dict[str, Any], int, str]] = {
    "1-D convolution": ("Conv", [random(6, 4, 3)], {}, 17, "only 2-D"),
    "weights of nobody": ("Conv", [random(6, 3, 3, 3)], {}, 17, "4 channels"),
    "reflection": ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}, 13, "reflect"),
    "step back": ("Slice", [ints(-1), ints(-100), ints(3), ints(-1)], {}, 13, "step -1"),
    "softmax over images": ("Softmax", [], {"axis": 0}, 13, "batch"),
    "cubic": ("Resize", [None, floats(1, 1, 2, 2)], {"mode": "cubic"}, 13, "cubic"),
    "more channels": ("Resize", [None, floats(1, 2, 2, 2)], {}, 13, "channels"),
    "training batch norm": ("BatchNormalization", [random(4)] * 4, {"training_mode": 1}, 15, "eval"),
    "square root": ("Sqrt", [], {}, 13, "computed from the image"),
    "too far": ("Transpose", [], {"perm": [0, 1, 2, 9]}, 13, "does not fit"),
    "axis out of range": ("Softmax", [], {"axis": 7}, 13, "axis 7"),
    "no bias like that": ("Conv", [random(6, 4, 3, 3), random(5)], {}, 17, "bias"),
    "wrong view": ("Reshape", [ints(-1, 11)], {}, 13, "does not fit"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_unsupported_form_is_refused_by_name(form: str, tmp_path: Path) -> None:
    op_type, others, attributes, opset, words = REFUSED[form]
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(others)]
    constants = {name: value for name, value in zip(names, others, strict=True) if value is not None}
    path = tmp_path / "form.onnx"
    write(
        path,
        [helper.make_node(op_type, ["x", *names], ["y"], "culprit", **attributes)],
        constants,
        ["n", 4, 7, 9],
        opset,
    )
    with pytest.raises(ModelError, match=words) as caught:
        import_onnx(path)
    assert "culprit" in str(caught.value)
    assert op_type in str(caught.value)


@pytest.mark.parametrize("settings", [{"transB": 1}, {"alpha": 0.5, "beta": 2.0}], ids=["transposed", "scaled"])
def test_gemm_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    weight = random(5, 36) if settings.get("transB") else random(36, 5)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["y"], "head", **settings),
    ]
    path = tmp_path / "gemm.onnx"
    write(path, nodes, {"head.weight": weight, "head.bias": random(1, 5)}, [1, 4, 3, 3], 13)
    network, x = import_onnx(path), torch.randn(3, 4, 3, 3)
    assert isinstance(network.layers()["head"], nn.Linear)
    with torch.no_grad():
        assert agree(network.module(x), in_onnxruntime(path, x))


def split_by_sizes(opset: int) -> list[onnx.NodeProto]:
    outputs = ["a", "b", "c"]
    split = helper.make_node("Split", ["x"], outputs, "cut", axis=1, **({"num_outputs": 3} if opset >= 18 else {}))
    return [split, helper.make_node("Concat", ["c", "a", "b"], ["y"], "join", axis=1)]


@pytest.mark.parametrize("opset", [13, 18])
def test_split_in_equal_parts(opset: int, tmp_path: Path) -> None:
    path, x = tmp_path / "split.onnx", torch.randn(2, 6, 3, 3)
    write(path, split_by_sizes(opset), {}, ["n", 6, 3, 3], opset)
    with torch.no_grad():
        assert agree(import_onnx(path).module(x), in_onnxruntime(path, x))


def test_local_functions_are_expanded(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    call = helper.make_node("swish", ["x"], ["y"], "act", domain="local")
    graph = helper.make_graph(
        [call],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 3, 3])],
    )
    function = helper.make_function("local", "swish", ["a"], ["b"], body, opsets)
    path, x = tmp_path / "function.onnx", torch.randn(2, 2, 3, 3)
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9), path)
    assert agree(import_onnx(path).module(x), nn.functional.silu(x))


def mixing_reshape() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A view that joins two images into one: right for batch 2 only."""
    return [helper.make_node("Reshape", ["x", "shape"], ["y"], "join")], {"shape": ints(1, 8, 3, 3)}


def summing_images() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Transposed so that the batch is normalized away as if it were a feature."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2, 3]),
        helper.make_node("InstanceNormalization", ["t", "one", "zero"], ["n"], "norm"),
        helper.make_node("MatMul", ["x", "n"], ["y"], "product"),
    ]
    return nodes, {"one": np.ones(2, np.float32), "zero": np.zeros(2, np.float32)}


@pytest.mark.parametrize("make", [mixing_reshape, summing_images])
def test_networks_that_mix_images_are_refused(
    make: Callable[[], tuple[list[onnx.NodeProto], dict[str, Array]]], tmp_path: Path
) -> None:
    nodes, constants = make()
    path = tmp_path / "mixing.onnx"
    write(path, nodes, constants, [2, 4, 3, 3], 17)
    with pytest.raises(ModelError):
        import_onnx(path)


def test_output_that_ignores_the_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constant.onnx"
    write(path, [helper.make_node("Add", ["a", "a"], ["y"], "sum")], {"a": floats(1)}, ["n", 4, 3, 3], 17)
    with pytest.raises(ModelError, match="does not depend on the image"):
        import_onnx(path)


def test_error_lists_what_is_supported(tmp_path: Path) -> None:
    path = tmp_path / "sqrt.onnx"
    write(path, [helper.make_node("Sqrt", ["x"], ["y"], "root")], {}, ["n", 4, 3, 3], 17)
    with pytest.raises(UnsupportedOperatorError, match=r"root.*Sqrt.*supported: Add, .*Conv, .*Unsqueeze"):
        import_onnx(path)
