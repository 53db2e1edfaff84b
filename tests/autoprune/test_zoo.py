"""The zoo: sizes of the published architectures, key names, and the reference weights where they are at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from autoprune.errors import ModelError, UnknownNameError
from autoprune.formats.weights import load_weights
from autoprune.zoo.registry import ARCHITECTURES, build

#: Parameters in millions, as published (He et al. 2015 tables 6 and 1; Howard et al. 2017; Sandler et al. 2018).
PARAMETERS = {
    "resnet20_cifar": 0.27, "resnet32_cifar": 0.46, "resnet44_cifar": 0.66, "resnet56_cifar": 0.85,
    "resnet110_cifar": 1.73, "mobilenet_v1": 4.23, "mobilenet_v2": 3.50, "resnet18": 11.69, "resnet50": 25.56,
    "vgg11_bn": 9.23, "vgg16_bn": 14.73,
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_published(name: str) -> None:
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        module = architecture.make(architecture.num_classes, architecture.input_shape)
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.006)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_compute_what_their_modules_compute(name: str) -> None:
    shape = (3, 64, 64) if ARCHITECTURES[name].input_shape[1] == 224 else (3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = ARCHITECTURES[name].make(7, shape).eval()
    network = build(name, num_classes=7, input_shape=shape, seed=1)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(network.module(images), module(images), atol=1e-5, rtol=1e-5)
    assert network.output_shape == (7,)
    assert network.module.state_dict().keys() == module.state_dict().keys()


def test_other_images_and_classes() -> None:
    for name in ("resnet20_cifar", "vgg11_bn", "mobilenet_v1"):
        network = build(name, num_classes=4, input_shape=(1, 16, 20))
        assert (network.input_shape, network.output_shape) == ((1, 16, 20), (4,))


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build("resnet20_cifar", seed=3).fingerprint()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    assert build("resnet20_cifar", seed=3).fingerprint() == first
    assert build("resnet20_cifar", seed=4).fingerprint() != first


def test_errors_say_what_is_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet20_cifar'"):
        build("resnet20-cifar", num_classes=10, input_shape=(3, 32, 32))
    with pytest.raises(ModelError, match="at least 16 x 16"):
        build("resnet18", input_shape=(3, 8, 8))


@pytest.mark.parametrize("depth", [20, 56])
def test_reference_weights_load_and_agree_with_their_onnx_files(shared: Path, depth: int) -> None:
    path = shared / "models" / f"resnet{depth}_cifar10_jpeg.safetensors"
    network = load_weights(build(f"resnet{depth}_cifar"), path)
    loaded = {name for name in load_file(path) if "num_batches" not in name}
    assert loaded == {name for name in network.module.state_dict() if "num_batches" not in name}
    images = torch.randn(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(path.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": images.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(network.module(images).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("sizes", [{"num_classes": 10**11}, {"input_shape": (3, 4096, 4096)}, {"num_classes": 0}])
def test_sizes_that_would_take_the_machine_down_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="class"):
        build("resnet20_cifar", **sizes)
