"""Small networks of many kinds, and the files that both torch exporters make of them.

Weights are seeded; batch normalization has random statistics, so that dropping or misplacing one shows.
"""

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from tests import corpus_networks
from tests.corpus_networks import (
    ConvNeXtBlock,
    GroupShuffleBlock,
    Head,
    Inception,
    Irregular,
    ResNet,
    ResNeXtBlock,
    ShuffleBlock,
    SqueezeExcite,
    UNet,
    Upsampler,
    ViT,
    conv_relu,
    densenet,
    lenet,
    mobilenet_v1,
    mobilenet_v2,
    vgg,
)

Exporter = Literal["torchscript", "dynamo"]
EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A network: how it is made, its input, and how it is exported."""

    make: Callable[[], nn.Module]
    shape: tuple[int, int, int] = (3, 16, 16)
    opset: int = 17
    dynamic_batch: bool = True
    keep_norm: bool = False


_ENTRIES: dict[str, _Entry] = {
    "vgg": _Entry(vgg, opset=13, keep_norm=True),
    "lenet": _Entry(lenet, (1, 16, 16), dynamic_batch=False),
    "resnet_padded": _Entry(lambda: ResNet((8, 12, 16), 2, padded=True), opset=18, keep_norm=True),
    "resnet_projected": _Entry(lambda: ResNet((8, 12, 16), 1, padded=False), opset=15, dynamic_batch=False),
    "mobilenet_v1": _Entry(mobilenet_v1, (3, 32, 32), opset=20, keep_norm=True),
    "mobilenet_v2": _Entry(mobilenet_v2, (3, 32, 32), opset=13),
    "resnext": _Entry(lambda: nn.Sequential(conv_relu(3, 16), ResNeXtBlock(16, 3), ResNeXtBlock(16, 4), Head(16))),
    "se_conv": _Entry(
        lambda: nn.Sequential(
            conv_relu(3, 8), SqueezeExcite(8, 4, False), conv_relu(8, 12), SqueezeExcite(12, 4, False), Head(12)
        ),
        opset=15,
    ),
    "se_linear": _Entry(
        lambda: nn.Sequential(
            conv_relu(3, 8), SqueezeExcite(8, 4, True), conv_relu(8, 12), SqueezeExcite(12, 4, True), Head(12)
        ),
        dynamic_batch=False,
    ),
    "densenet": _Entry(densenet, opset=18),
    "inception": _Entry(lambda: nn.Sequential(conv_relu(3, 8), Inception(8), Inception(18), Head(18)), opset=20),
    "unet": _Entry(UNet, keep_norm=True),
    "shufflenet_v1": _Entry(
        lambda: nn.Sequential(conv_relu(3, 12), GroupShuffleBlock(12, 3), GroupShuffleBlock(12, 2), Head(12)),
        dynamic_batch=False,
    ),
    "shufflenet_v2": _Entry(
        lambda: nn.Sequential(conv_relu(3, 12), ShuffleBlock(12), nn.MaxPool2d(2), ShuffleBlock(12), Head(12)), opset=18
    ),
    "irregular": _Entry(Irregular, opset=17),
    "vit_token": _Entry(lambda: ViT(True), opset=17),
    "vit_mean": _Entry(lambda: ViT(False), opset=13, dynamic_batch=False, keep_norm=True),
    "upsampler": _Entry(Upsampler, opset=18),
    "convnext": _Entry(
        lambda: nn.Sequential(nn.Conv2d(3, 12, 2, 2), ConvNeXtBlock(12), ConvNeXtBlock(12), Head(12)), opset=20
    ),
}


def _sound(name: str) -> nn.Module:
    """Make a network with seeded weights and batch normalization that does something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
        module = _ENTRIES[name].make()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
                nn.init.normal_(layer.running_mean, std=0.3)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def _maker(name: str) -> Callable[[], nn.Module]:
    return lambda: _sound(name)


#: A function per network that makes it, in evaluation mode, the same every time.
NETWORKS: dict[str, Callable[[], nn.Module]] = {name: _maker(name) for name in _ENTRIES}


def input_shape(name: str) -> tuple[int, int, int]:
    """Return the shape of one image, ``(C, H, W)``."""
    return _ENTRIES[name].shape


def images(name: str, count: int = 3) -> Tensor:
    """Return random images for a network, the same every time, ``(count, C, H, W)``."""
    return torch.randn(count, *input_shape(name), generator=torch.Generator().manual_seed(1))


def exported(name: str, exporter: Exporter) -> Path:
    """Return the ONNX file that an exporter makes of a network; made once, until the corpus or torch changes."""
    versions = f"{torch.__version__} {onnx.__version__}"
    sources = b"".join(Path(file).read_bytes() for file in (__file__, corpus_networks.__file__))
    key = hashlib.sha256(sources + versions.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"autoprune-corpus-{os.getuid()}-{key}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.{exporter}.onnx"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / path.name
            entry = _ENTRIES[name]
            export(
                NETWORKS[name](), entry.shape, draft, exporter,
                opset=entry.opset, dynamic_batch=entry.dynamic_batch, keep_norm=entry.keep_norm,
            )  # fmt: skip
            draft.replace(path)
    return path


def export(
    module: nn.Module,
    shape: tuple[int, int, int],
    path: Path,
    exporter: Exporter,
    *,
    opset: int = 17,
    dynamic_batch: bool = True,
    keep_norm: bool = False,
) -> None:
    """Export a module quietly: one file, input ``image``, output ``logits``.

    The dynamo exporter starts from operator set 18 and converts down where it can. With `keep_norm` the TorchScript
    exporter neither folds batch normalization nor constants.
    """
    image = torch.zeros(2 if dynamic_batch else 1, *shape)
    quiet = contextlib.ExitStack()
    with quiet, torch.no_grad():
        quiet.enter_context(warnings.catch_warnings())
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        quiet.callback(logging.disable, disabled)
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
        if exporter == "torchscript":
            axes = {"image": {0: "batch"}, "logits": {0: "batch"}} if dynamic_batch else None
            if keep_norm:
                names |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
            torch.onnx.export(module, (image,), path, dynamo=False, dynamic_axes=axes, **names)
        else:
            shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
            torch.onnx.export(
                module, (image,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **names
            )
