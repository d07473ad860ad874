"""VGG networks with batch norm for small images: one linear layer instead of three.

K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (arXiv
1409.1556), table 1, columns A, B, D and E; batch norm: S. Ioffe and C. Szegedy, 2015 (arXiv 1502.03167). At 32 px,
github.com/kuangliu/pytorch-cifar has 92.64 % test accuracy on CIFAR-10 for VGG-16 (14.7 M parameters).
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order

Depth = Literal[11, 13, 16, 19]
CONVOLUTIONS: dict[Depth, tuple[int, ...]] = {  # in each stage; the depth also counts the paper's three linear layers
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each stage followed by max pooling; global average pooling, linear layer.

    Poolings keep an odd last row and column, so that something is left of images that 32 doesn't divide.

    dropout: probability, of the features before the linear layer.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        depth: Depth = 16,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise UserError(f"model.depth={depth}: must be one of {', '.join(map(str, CONVOLUTIONS))}")
        layers: list[nn.Module] = []
        width = in_channels
        for out, convolutions in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
            for _ in range(convolutions):
                # With a bias, which the norm makes superfluous, as the published networks have one.
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), activation()]
                width = out
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, num_classes)
        )
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.features, self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))
