"""Densely connected networks with bottlenecks and compression (DenseNet-BC).

G. Huang, Z. Liu, L. van der Maaten and K. Weinberger, "Densely connected convolutional networks", 2017 (arXiv
1608.06993), table 2: DenseNet-BC with depth 100 and growth rate 12 has 0.8 M parameters and 4.51 % test error on
CIFAR-10 with flips and shifts, 300 epochs; 250 and 24: 15.3 M, 3.62 %; 190 and 40: 25.6 M, 3.46 %.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order

BOTTLENECK = 4  # channels between a layer's two convolutions, in growth rates


class DenseNet(nn.Module):
    """A convolution, three dense blocks with transitions between them, norm, global average pooling, linear layer.

    `depth` counts the convolutions and the linear layer (100 = 1 + 3 * 16 * 2 + 2 + 1). Each layer adds `growth_rate`
    channels to those of all layers before it in its block; a transition keeps the share `compression` of the channels
    and halves the image. dropout: probability, after each convolution but the first.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        depth: int = 100,
        growth_rate: int = 12,
        compression: float = 0.5,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        number, rest = divmod(depth - 4, 6)
        if rest or number < 1:
            near = 6 * max(1, round((depth - 4) / 6)) + 4
            raise UserError(f"model.depth={depth}: must be 6 n + 4 for n layers per block, e.g. {near}")
        if growth_rate < 1:
            raise UserError(f"model.growth_rate={growth_rate}: must be at least 1")
        if not 0 < compression <= 1:
            raise UserError(f"model.compression={compression}: must be a number above 0, up to 1")
        width = 2 * growth_rate
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False)]
        for block in range(3):
            if block > 0:
                out = max(1, int(width * compression))
                layers.append(nn.Sequential(*_convolution(width, out, 1, dropout, activation), nn.AvgPool2d(2)))
                width = out
            for _ in range(number):
                layers.append(DenseLayer(width, growth_rate, dropout, activation))
                width += growth_rate
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), activation())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.features, self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution; returns the input with their channels after it."""

    def __init__(self, width: int, growth_rate: int, dropout: float, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        inner = BOTTLENECK * growth_rate
        self.new = nn.Sequential(
            *_convolution(width, inner, 1, dropout, activation),
            *_convolution(inner, growth_rate, 3, dropout, activation),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


def _convolution(
    width: int, out: int, kernel: int, dropout: float, activation: Callable[[], nn.Module]
) -> list[nn.Module]:
    """Norm and activation before the convolution, as in ResNets with pre-activation."""
    conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(width), activation(), conv, nn.Dropout(dropout)]
