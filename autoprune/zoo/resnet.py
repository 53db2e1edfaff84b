"""ResNets for large images (He et al. 2015, 1512.03385, table 1); torchvision's key names."""

import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.network.network import Shape


def _shortcut(into: int, out: int, stride: int) -> nn.Sequential | None:
    """Return a 1x1 convolution where size or channels change."""
    if stride == 1 and into == out:
        return None
    return nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(into, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, into, h, w)`` to ``(n, width, h / stride, w / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution to four times the width."""

    expansion = 4

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(into, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, into, h, w)`` to ``(n, 4 width, h / stride, w / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Four stages of `block`, `repeats` each."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self, block: type[BasicBlock | Bottleneck], repeats: tuple[int, ...], num_classes: int, input_shape: Shape
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for index, count in enumerate(repeats):
            width, blocks = 64 * 2**index, []
            for repeat in range(count):
                blocks.append(block(channels, width, 2 if index > 0 and repeat == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to class scores."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]
