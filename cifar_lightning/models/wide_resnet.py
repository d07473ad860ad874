"""Wide residual networks.

S. Zagoruyko and N. Komodakis, "Wide residual networks", 2016 (arXiv 1605.07146): WRN-28-10 has 36.5 M parameters and
4.00 % test error on CIFAR-10 (3.89 % with dropout 0.3), the median of 5 runs with flips and shifts.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order
from cifar_lightning.models.stochastic_depth import stochastic_depths


class WideResNet(nn.Module):
    """A convolution to 16 channels, three groups of pre-activation blocks, global average pooling, linear layer.

    `depth` counts the convolutions, including the 1x1 shortcut of each group (28 = 1 + 3 * (4 * 2 + 1)); the groups
    have 16, 32 and 64 channels times `widen_factor`. stochastic_depth: probability that the last block is left out in
    training; less for those before it.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            near = 6 * max(1, round((depth - 4) / 6)) + 4
            raise UserError(f"model.depth={depth}: must be 6 n + 4 for n blocks per group, e.g. {near}")
        layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]
        width, depths = 16, iter(stochastic_depths(stochastic_depth, 3 * blocks))
        for group in range(3):
            for block in range(blocks):
                stride = 2 if group > 0 and block == 0 else 1
                out = 16 * 2**group * widen_factor
                layers.append(WideBlock(width, out, stride, dropout, next(depths), activation))
                width = out
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), activation())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.features, self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class WideBlock(nn.Module):
    """Norm and activation before each of two 3x3 convolutions, dropout between them.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input, as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        dropout: float,
        stochastic_depth: StochasticDepth,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.preactivation = nn.Sequential(nn.BatchNorm2d(in_channels), activation())
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            activation(),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None
        self.stochastic_depth = stochastic_depth

    def forward(self, x: Tensor) -> Tensor:
        activated = self.preactivation(x)
        return self.stochastic_depth(self.residual(activated)) + (
            x if self.shortcut is None else self.shortcut(activated)
        )
