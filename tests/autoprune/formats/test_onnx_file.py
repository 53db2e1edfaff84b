"""Files that must be refused, each with one clear error."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from autoprune.errors import AutopruneError, ModelError, UnsupportedOperatorError
from autoprune.formats import onnx_file
from autoprune.formats.onnx_file import image_input, read_onnx
from autoprune.formats.onnx_import import import_onnx
from tests.corpus import exported


def small_model() -> ModelProto:
    """A convolution and a ReLU on 3x8x8 images."""
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["out"], name="act"),
    ]
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "conv.weight")
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def set_weight(model: ModelProto, value: np.ndarray) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "conv.weight"))


def old_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 12


def new_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 21


def external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def custom_domain(model: ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("FusedGelu", ["y"], ["out"], "fused", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def control_flow(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node[1].CopyFrom(helper.make_node("If", ["y"], ["out"], "maybe", then_branch=body, else_branch=body))


def loop(model: ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("Loop", ["y"], ["out"], "again"))


def recurrent(model: ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("LSTM", ["y", "w", "r"], ["out"], "memory", hidden_size=4))


def sequence(model: ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("SequenceConstruct", ["y"], ["out"], "list"))


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("NonMaxSuppression", ["y"], ["out"], "detector"))


def integer_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def two_inputs(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, 8, 8]))


def two_outputs(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))


def open_size(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def not_an_image(model: ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[3]


def nan_weight(model: ModelProto) -> None:
    set_weight(model, np.full((4, 3, 3, 3), np.nan, np.float32))


def infinite_weight(model: ModelProto) -> None:
    set_weight(model, np.full((4, 3, 3, 3), np.inf, np.float32))


def wrong_size(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1_000_000_000


def negative_size(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def text_tensor(model: ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(helper.make_tensor("conv.weight", TensorProto.STRING, [1], [b"x"]))


def sparse_weight(model: ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "thin")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "thin_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))


def undefined_name(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def wrong_channels(model: ModelProto) -> None:
    set_weight(model, np.ones((4, 5, 3, 3), np.float32))


def memory_bomb(model: ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([100_000, 100_000]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["huge"], "bomb"))
    model.graph.node[2].CopyFrom(helper.make_node("Add", ["y", "huge"], ["out"], "sum"))


def activation_bomb(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", [2**20] * 4))


def effort_bomb(model: ModelProto) -> None:
    node = model.graph.node[0]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(np.zeros((4, 3, 200, 200), np.float32), weight.name))
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("pads", [400] * 4))


def unknown_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 2**31 - 1


def function_bomb(model: ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    for level in range(40):
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", f"f{level}", ["a"], ["b"], body, opsets))
        body = [helper.make_node(f"f{level}", [a], [b], domain="local") for a, b in (("a", "t"), ("t", "b"))]
    model.graph.node[1].CopyFrom(helper.make_node("f39", ["y"], ["out"], "nested", domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))


def recursion(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("local", 1)]
    body = [helper.make_node("f", ["a"], ["b"], domain="local")]
    model.functions.append(helper.make_function("local", "f", ["a"], ["b"], body, opsets))
    model.graph.node[1].CopyFrom(helper.make_node("f", ["y"], ["out"], "nested", domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))


BAD_FILES: list[tuple[Callable[[ModelProto], None], type[AutopruneError], tuple[str, ...]]] = [
    (old_opset, ModelError, ("opset 12", "13 to 20", "opset_version=17")),
    (new_opset, ModelError, ("opset 21", "13 to 20", "opset_version=17")),
    (external, ModelError, ("conv.weight", "external data", "external_data=False", "save_as_external_data")),
    (custom_domain, UnsupportedOperatorError, ("fused", "com.microsoft.FusedGelu", "custom", "Conv, ")),
    (control_flow, UnsupportedOperatorError, ("maybe", "If", "control flow", "Conv, ")),
    (loop, UnsupportedOperatorError, ("again", "Loop", "control flow", "Conv, ")),
    (recurrent, UnsupportedOperatorError, ("memory", "LSTM", "recurrent", "Conv, ")),
    (sequence, UnsupportedOperatorError, ("list", "SequenceConstruct", "sequences", "Conv, ")),
    (unknown_operator, UnsupportedOperatorError, ("detector", "NonMaxSuppression", "not supported", "Conv, ")),
    (integer_input, ModelError, ("image", "UINT8", "float")),
    (two_inputs, ModelError, ("one input", "2", "mask")),
    (two_outputs, ModelError, ("one output", "2", "'y'")),
    (open_size, ModelError, ("image", "height", "input_shape")),
    (not_an_image, ModelError, ("image", "(N, C, H, W)")),
    (nan_weight, ModelError, ("conv.weight", "NaN")),
    (infinite_weight, ModelError, ("conv.weight", "infinite")),
    (wrong_size, ModelError, ("conv.weight", "1000000000", "108")),
    (negative_size, ModelError, ("conv.weight", "-4")),
    (text_tensor, ModelError, ("conv.weight", "element type", "float")),
    (sparse_weight, ModelError, ("thin", "sparse", "dense")),
    (undefined_name, ModelError, ("nowhere", "valid ONNX")),
    (wrong_channels, UnsupportedOperatorError, ("conv", "Conv", "3 channels")),
    (memory_bomb, ModelError, ("bomb", "too large")),
    (activation_bomb, ModelError, ("conv", "values per image")),
    (effort_bomb, ModelError, ("conv", "multiplications")),
    (unknown_type, ModelError, ("image", "element type 2147483647")),
    (function_bomb, ModelError, ("nodes",)),
    (recursion, ModelError, ("calls itself",)),
]


@pytest.mark.parametrize(("spoil", "error", "words"), BAD_FILES, ids=[case[0].__name__ for case in BAD_FILES])
def test_bad_file_is_refused(
    spoil: Callable[[ModelProto], None], error: type[AutopruneError], words: tuple[str, ...], tmp_path: Path
) -> None:
    model = small_model()
    spoil(model)
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        import_onnx(path)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_unspoilt_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.onnx"
    onnx.save(small_model(), path)
    assert image_input(read_onnx(path)) == onnx_file.ImageInput("image", (3, 8, 8), None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("does not exist",)),
        (b"", ("empty",)),
        (b"\x80\x04\x95pickled", ("corrupt", "ONNX")),
        (b"PK\x03\x04 a zip", ("corrupt", "ONNX")),
        (small_model().SerializeToString()[:-200], ("cut off", "export it again")),
    ],
    ids=["missing", "empty", "pickle", "zip", "truncated"],
)
def test_broken_file_is_refused(content: bytes | None, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_onnx(path)
    for word in (*words, "broken.onnx"):
        assert word in str(caught.value)


def test_limits_are_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "good.onnx"
    onnx.save(small_model(), path)
    monkeypatch.setattr(onnx_file, "MAX_NODES", 1)
    with pytest.raises(ModelError, match="more than 1 nodes"):
        read_onnx(path)
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", 10)
    with pytest.raises(ModelError, match="at most 10 are read"):
        read_onnx(path)


def test_input_shape_fills_open_sizes_and_must_not_contradict(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    model = small_model()
    open_size(model)
    onnx.save(model, path)
    assert import_onnx(path, input_shape=(3, 12, 8)).shapes["output"] == (1, 4, 12, 8)
    with pytest.raises(ModelError, match="contradicts"):
        import_onnx(path, input_shape=(1, 12, 8))


def test_no_damaged_file_escapes_the_error_types(tmp_path: Path) -> None:
    """Flip bytes in the structure of a real file: it loads, or one of our errors says why not."""
    original = exported("vit_token", "torchscript").read_bytes()
    generator = random.Random(0)  # noqa: S311 - damage, not secrets
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(60):
        damaged = bytearray(original)
        for _ in range(generator.choice((1, 3, 20))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            import_onnx(path)
        except ModelError as error:
            refused += bool(str(error))
    assert refused >= 5
