"""The networks of the corpus, and the blocks that they are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBn(nn.Sequential):
    """Convolution, batch normalization and, unless `act` is None, an activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: nn.Module | None = None
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([act] if act is not None else []))


def conv_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> ConvBn:
    return ConvBn(inputs, outputs, kernel, stride, groups, nn.ReLU())


class Head(nn.Sequential):
    """Global average pooling and a linear layer."""

    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut: identity, padded or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.grow = outputs - inputs
        self.padded = padded
        if self.grow and not padded:
            self.downsample = ConvBn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.grow and self.padded:
            side = self.grow // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, self.grow - side))
        elif self.grow:
            x = self.downsample(x)
        return F.relu(x + y)


class ResNet(nn.Module):
    """Three stages of residual blocks."""

    def __init__(self, widths: tuple[int, int, int], blocks: int, padded: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        stages, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            layers = []
            for block in range(blocks):
                layers.append(ResidualBlock(inputs, width, 2 if stage and not block else 1, padded))
                inputs = width
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            ConvBn(inputs, hidden, 1, act=nn.ReLU6()),
            ConvBn(hidden, hidden, 3, stride, hidden, nn.ReLU6()),
            ConvBn(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class SqueezeExcite(nn.Module):
    """Channel attention; its two layers are 1x1 convolutions or linear."""

    def __init__(self, channels: int, reduced: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.fc1 = nn.Linear(channels, reduced) if linear else nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Linear(reduced, channels) if linear else nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear:
            scale = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
            return x * scale.view(x.size(0), -1, 1, 1)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class DenseLayer(nn.Module):
    """DenseNet's layer: norm first, the result joined to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Inception(nn.Module):
    """Branches with different kernels, joined."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = conv_relu(inputs, 4, 1)
        self.three = nn.Sequential(conv_relu(inputs, 4, 1), conv_relu(4, 6))
        self.five = nn.Sequential(conv_relu(inputs, 3, 1), conv_relu(3, 5, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_relu(inputs, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class UNet(nn.Module):
    """Encoder and decoder with joined shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv_relu(3, 6), conv_relu(6, 10), conv_relu(10, 14)
        self.up2, self.dec2 = nn.ConvTranspose2d(14, 10, 2, 2), conv_relu(20, 10)
        self.up1, self.dec1 = nn.ConvTranspose2d(10, 6, 3, 2, 1, output_padding=1), conv_relu(12, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.middle(F.max_pool2d(b, 2))
        y = self.dec2(torch.cat([self.up2(y), b], 1))
        return self.out(self.dec1(torch.cat([self.up1(y), a], 1)))


class ShuffleBlock(nn.Module):
    """ShuffleNetV2's block: half the channels pass, the halves are joined and shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(conv_relu(half, half, 1), ConvBn(half, half, 3, 1, half), conv_relu(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class GroupShuffleBlock(nn.Module):
    """ShuffleNetV1's block: grouped convolutions around a channel shuffle, with a shortcut."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv1, self.conv2 = (
            conv_relu(channels, channels, 1, groups=groups),
            ConvBn(channels, channels, 1, 1, groups),
        )
        self.depthwise = ConvBn(channels, channels, 3, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        n, c, h, w = y.size()
        y = y.view(n, self.groups, c // self.groups, h, w).permute(0, 2, 1, 3, 4).contiguous().view(n, c, h, w)
        return F.relu(x + self.conv2(self.depthwise(y)))


class Irregular(nn.Module):
    """Dilation, asymmetric padding, an average pool with padding, and channel-wise constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, (3, 2), (2, 1)), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=2, dilation=2)
        self.conv3 = nn.Conv2d(12, 12, (1, 5), padding=(0, 2), padding_mode="zeros", bias=False)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.scale = nn.Parameter(torch.rand(1, 12, 1, 1) + 0.5)
        self.prelu = nn.PReLU(12)
        self.head = Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.bn1(self.conv1(F.pad(x, (1, 0, 0, 1)))))
        x = F.leaky_relu(self.conv2(x), 0.2)
        x = self.pool(self.prelu(self.conv3(x)) * self.scale - 0.1)
        return self.head(F.max_pool2d(x, 3, 2, ceil_mode=True))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, width))


class EncoderBlock(nn.Module):
    """Transformer block, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer: class token or mean of the tokens."""

    def __init__(self, class_token: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.class_token = class_token
        if class_token:
            self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 16 + class_token, 16) * 0.1)
        self.blocks, self.norm = nn.Sequential(EncoderBlock(16, 2), EncoderBlock(16, 2)), nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.class_token:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.position))
        return self.head(x[:, 0] if self.class_token else x.mean(1))


class Upsampler(nn.Module):
    """Hard-swish, leaky ReLU, SiLU, and both kinds of upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = ConvBn(3, 8, stride=2, act=nn.Hardswish()), ConvBn(8, 12, stride=2, act=nn.SiLU())
        self.lateral, self.merge = ConvBn(12, 8, 1, act=nn.LeakyReLU(0.1)), ConvBn(8, 6, act=nn.Mish())
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        y = a + F.interpolate(self.lateral(self.deep(a)), scale_factor=2.0, mode="nearest")
        return torch.tanh(
            self.out(F.interpolate(self.merge(y), scale_factor=2.0, mode="bilinear", align_corners=False))
        )


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, layer norm and MLP on channels last, layer scale, shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


def vgg() -> nn.Module:
    return nn.Sequential(
        conv_relu(3, 8), nn.MaxPool2d(2), conv_relu(8, 16), conv_relu(16, 16), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 24), nn.ReLU(), nn.Dropout(0.5), nn.Linear(24, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip


def mobilenet_v1() -> nn.Module:
    def separable(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Sequential(conv_relu(inputs, inputs, 3, stride, inputs), conv_relu(inputs, outputs, 1))

    return nn.Sequential(
        conv_relu(3, 8, stride=2), separable(8, 16, 1), separable(16, 24, 2), separable(24, 24, 1), Head(24)
    )


def mobilenet_v2() -> nn.Module:
    blocks = [InvertedResidual(8, 12, 2, 3), InvertedResidual(12, 12, 1, 3), InvertedResidual(12, 16, 1, 2)]
    return nn.Sequential(ConvBn(3, 8, act=nn.ReLU6()), *blocks, ConvBn(16, 32, 1, act=nn.ReLU6()), Head(32))


class ResNeXtBlock(nn.Module):
    """Bottleneck with a grouped convolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_relu(channels, 12, 1), conv_relu(12, 12, groups=groups), ConvBn(12, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def densenet() -> nn.Module:
    transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), DenseLayer(8, 6), DenseLayer(14, 6), transition,
        DenseLayer(10, 6), nn.BatchNorm2d(16), nn.ReLU(), Head(16),
    )  # fmt: skip
