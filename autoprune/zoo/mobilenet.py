"""MobileNets V1 (Howard et al. 2017, 1704.04861) and V2 (Sandler et al. 2018, 1801.04381)."""

from torch import Tensor, nn

from autoprune.network.network import Shape

# (channels, stride) of the separable blocks of V1, table 1.
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

# (expansion, channels, repeats, stride) of the stages of V2, table 2.
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _unit(into: int, out: int, kernel: int, stride: int, groups: int, activation: type[nn.Module]) -> list[nn.Module]:
    """Convolution, batch norm, activation."""
    convolution = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out), activation()]


class _Classifier(nn.Module):
    """Features, global average pooling, one linear layer."""

    features: nn.Sequential
    classifier: nn.Linear
    pool: nn.AdaptiveAvgPool2d

    def forward(self, x: Tensor) -> Tensor:
        """Map images to class scores."""
        return self.classifier(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


class MobileNetV1(_Classifier):
    """Depthwise separable convolutions; images under 64 pixels keep their size in the first layer."""

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        layers = _unit(input_shape[0], 32, 3, 2 if min(input_shape[1:]) >= 64 else 1, 1, nn.ReLU)
        channels = 32
        for out, stride in _V1:
            layers += _unit(channels, channels, 3, stride, channels, nn.ReLU)
            layers += _unit(channels, out, 1, 1, 1, nn.ReLU)
            channels = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a shortcut where size and channels stay."""

    def __init__(self, into: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = into * expansion
        layers = _unit(into, hidden, 1, 1, 1, nn.ReLU6) if expansion > 1 else []
        layers += _unit(hidden, hidden, 3, stride, hidden, nn.ReLU6)
        layers += [nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, into, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(_Classifier):
    """Inverted residuals; images under 64 pixels keep their size in the first layer."""

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        layers = _unit(input_shape[0], 32, 3, 2 if min(input_shape[1:]) >= 64 else 1, 1, nn.ReLU6)
        channels = 32
        for expansion, out, repeats, stride in _V2:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, out, stride if index == 0 else 1, expansion))
                channels = out
        layers += _unit(channels, 1280, 1, 1, 1, nn.ReLU6)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)
