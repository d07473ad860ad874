"""ResNets for small images: a 3x3 stem without pooling, then stages of basic blocks.

K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", 2015 (arXiv 1512.03385), section
4.2: 91.25 % test accuracy on CIFAR-10 with 3 stages of 3 blocks (ResNet-20). Where the shape changes, this one has 1x1
projections with norm (their option B) instead of zero padding. A tutorial's network with 2 blocks a stage
(`model=resnet`) published 73.14 % after 3 epochs; github.com/kuangliu/pytorch-cifar has 93.02 % for ResNet-18 at 32 px
(`model=resnet18`).
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cifar_lightning.models.initialization import Init, initialize


class ResNet(nn.Module):
    """Stem, stages of `blocks` basic blocks each, global average pooling, linear layer.

    Every stage but the first halves the image.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        stem_width: int,
        widths: Sequence[int],
        blocks: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(in_channels, stem_width, 3), activation())
        layers: list[BasicBlock] = []
        width = stem_width
        for stage, out in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(width, out, stride, activation))
                width = out
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        initialize(self, init)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm, added to the shortcut before the last activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(in_channels, out_channels, 3, stride),
            activation(),
            *_conv_norm(out_channels, out_channels, 3),
        )
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Sequential(*([] if same_shape else _conv_norm(in_channels, out_channels, 1, stride)))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.residual(x) + self.shortcut(x))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # No bias, as the norm after it has one.
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]
