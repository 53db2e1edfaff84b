"""ResNets for small images (He et al. 2015, 1512.03385, section 4.2), shortcuts padded with zeros (option A)."""

import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.network.network import Shape


class Block(nn.Module):
    """Two 3x3 convolutions; a shortcut between stages takes every second pixel and pads the channels with zeros."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.padding = (out - into) // 2 if stride > 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, into, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class ResNetCifar(nn.Module):
    """ResNet of `depth` = 6n + 2 layers: three stages of 16, 32 and 64 channels."""

    def __init__(self, depth: int, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    @staticmethod
    def _stage(into: int, out: int, blocks: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(into, out, stride), *(Block(out, out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to class scores."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]
