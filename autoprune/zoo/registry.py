"""The names of the built-in architectures, and how each is built."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.errors import ModelError, UnknownNameError
from autoprune.network.network import Network, Shape
from autoprune.network.tracer import trace
from autoprune.zoo.mobilenet import MobileNetV1, MobileNetV2
from autoprune.zoo.resnet import BasicBlock, Bottleneck, ResNet
from autoprune.zoo.resnet_cifar import ResNetCifar
from autoprune.zoo.vgg import VGG, VGG11, VGG16


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to build one architecture: `make` takes the number of classes and the shape of one image."""

    make: Callable[[int, Shape], nn.Module]
    num_classes: int
    input_shape: Shape


#: Bounds on what is built for anybody who asks: larger ones take minutes and gigabytes.
MAX_CLASSES, MAX_IMAGE_VALUES = 100_000, 3 * 512 * 512

_CIFAR = (10, (3, 32, 32))
_IMAGENET = (1000, (3, 224, 224))

#: Every architecture by name, with its usual number of classes and input.
ARCHITECTURES = {
    **{f"resnet{depth}_cifar": Architecture(lambda n, s, d=depth: ResNetCifar(d, n, s), *_CIFAR)  # type: ignore[misc]
       for depth in (20, 32, 44, 56, 110)},
    "vgg11_bn": Architecture(lambda n, s: VGG(VGG11, n, s), *_CIFAR),
    "vgg16_bn": Architecture(lambda n, s: VGG(VGG16, n, s), *_CIFAR),
    "mobilenet_v1": Architecture(lambda n, s: MobileNetV1(n, s), *_IMAGENET),
    "mobilenet_v2": Architecture(lambda n, s: MobileNetV2(n, s), *_IMAGENET),
    "resnet18": Architecture(lambda n, s: ResNet(BasicBlock, (2, 2, 2, 2), n, s), *_IMAGENET),
    "resnet50": Architecture(lambda n, s: ResNet(Bottleneck, (3, 4, 6, 3), n, s), *_IMAGENET),
}  # fmt: skip


def build(name: str, *, num_classes: int | None = None, input_shape: Shape | None = None, seed: int = 0) -> Network:
    """Return a freshly initialised network of the architecture `name`, the same for the same `seed`.

    Args:
        name: One of :data:`ARCHITECTURES`.
        num_classes: Size of the output; the architecture's usual one by default.
        input_shape: Shape of one image, ``(C, H, W)``; the architecture's usual one by default.
        seed: Of the initial weights; the global random state is left alone.

    Raises:
        UnknownNameError: No such architecture.
        ModelError: The architecture does not run on such images.

    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES)
    architecture = ARCHITECTURES[name]
    shape = tuple(architecture.input_shape if input_shape is None else input_shape)
    classes = architecture.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise ModelError(f"{name} needs at least one class, found {classes}")
    if len(shape) != 3 or shape[0] < 1:
        raise ModelError(f"{name} takes images of shape (channels, height, width), found {shape}")
    if classes > MAX_CLASSES or math.prod(shape) > MAX_IMAGE_VALUES:
        raise ModelError(
            f"{name}: at most {MAX_CLASSES:,} classes and {MAX_IMAGE_VALUES:,} values per image are built, "
            f"found {classes:,} classes and images of shape {shape}"
        )
    if min(shape[1:]) < 16:
        raise ModelError(f"{name} needs images of at least 16 x 16 pixels, found {shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = architecture.make(classes, shape)
    return trace(module, shape)
