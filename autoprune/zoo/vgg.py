"""VGG with batch norm (Simonyan & Zisserman 2014, 1409.1556): a plain chain and one linear layer."""

from torch import Tensor, nn

from autoprune.network.network import Shape

#: Channels of each convolution; 0 stands for a 2x2 max-pool.
VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class VGG(nn.Module):
    """Convolutions without bias, batch norm and ReLU by `widths`, global average pooling, one linear layer."""

    def __init__(self, widths: tuple[int, ...], num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = input_shape[0], min(input_shape[1:])
        for width in widths:
            if width == 0:
                if size >= 2:  # smaller images run out of pixels before the last pool
                    layers.append(nn.MaxPool2d(2))
                size //= 2
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to class scores."""
        return self.classifier(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
