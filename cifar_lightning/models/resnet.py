"""ResNets for small images: a 3x3 stem without pooling, then stages of residual blocks.

K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", 2015 (arXiv 1512.03385), section
4.2: 91.25 % test accuracy on CIFAR-10 with 3 stages of 3 blocks (ResNet-20). Where the shape changes, this one has 1x1
projections with norm (their option B) instead of zero padding. A tutorial's network with 2 blocks a stage
(`model=resnet`) published 73.14 % after 3 epochs; github.com/kuangliu/pytorch-cifar has 93.02 % for ResNet-18 at 32 px
(`model=resnet18`), 93.62 % for ResNet-50 and 95.11 % for ResNet-18 with pre-activation.

Pre-activation: by the same authors, "Identity mappings in deep residual networks", 2016 (arXiv 1603.05027), table 4:
ResNet-164 with bottlenecks (`model=preact_resnet`) has 1.7 M parameters and 5.46 % test error, 200 epochs.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order
from cifar_lightning.models.stochastic_depth import stochastic_depths

Block = Literal["basic", "bottleneck", "preact", "preact_bottleneck"]
EXPANSION = 4  # channels of a bottleneck's output for each of its 3x3 convolution


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pooling, linear layer.

    Every stage but the first halves the image.

    widths: channels of the 3x3 convolutions in each stage; a bottleneck's output has 4 times as many.
    blocks: per stage, one number or a list.
    stochastic_depth: probability that the last block is left out in training; less for those before it.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        stem_width: int,
        widths: Sequence[int],
        blocks: int | Sequence[int] = 2,
        block: Block = "basic",
        stochastic_depth: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        stages = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if len(stages) != len(widths):
            wanted = f"{len(widths)} model.widths: give one number, or one for each"
            raise UserError(f"model.blocks has {len(stages)} entries for {wanted}")
        if min([stem_width, *widths, *stages], default=0) < 1:
            raise UserError("model.stem_width, model.widths, model.blocks: give numbers of at least 1")
        preact = block.startswith("preact")
        make = PreactivationBlock if preact else ResidualBlock
        depths = iter(stochastic_depths(stochastic_depth, sum(stages)))
        stem = _conv_norm(in_channels, stem_width, 3)
        # With pre-activation, the first block's norm and activation follow the convolution.
        self.stem = nn.Sequential(*(stem[:1] if preact else [*stem, activation()]))
        layers: list[nn.Module] = []
        width = stem_width
        for stage, (inner, number) in enumerate(zip(widths, stages, strict=True)):
            for index in range(number):
                convolutions = _convolutions(block, width, inner, 2 if stage > 0 and index == 0 else 1)
                layers.append(make(convolutions, next(depths), activation))
                width = convolutions[-1][1]
        self.blocks = nn.Sequential(*layers, *([nn.BatchNorm2d(width), activation()] if preact else []))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.stem, self.blocks, self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)))


Convolution = tuple[int, int, int, int]  # input channels, output channels, kernel, stride


def _convolutions(block: Block, width: int, inner: int, stride: int) -> list[Convolution]:
    """The convolutions of a block with `width` input channels."""
    if block.endswith("bottleneck"):
        # The 3x3 convolution has the stride, as in torchvision's. In the paper it is the first, which skips pixels.
        return [(width, inner, 1, 1), (inner, inner, 3, stride), (inner, EXPANSION * inner, 1, 1)]
    return [(width, inner, 3, stride), (inner, inner, 3, 1)]


class ResidualBlock(nn.Module):
    """Convolutions, each with batch norm, added to the shortcut before the last activation (He et al. 2015)."""

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        stochastic_depth: StochasticDepth,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        layers = [layer for convolution in convolutions for layer in (*_conv_norm(*convolution), activation())]
        self.residual = nn.Sequential(*layers[:-1])
        ends = _ends(convolutions)
        self.shortcut = nn.Sequential(*(_conv_norm(*ends) if ends else []))
        self.stochastic_depth = stochastic_depth
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.stochastic_depth(self.residual(x)) + self.shortcut(x))


class PreactivationBlock(nn.Module):
    """Norm and activation before each convolution, added to the shortcut without any (He et al. 2016).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input, as in the authors' code.
    """

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        stochastic_depth: StochasticDepth,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        layers = [layer for c in convolutions for layer in (nn.BatchNorm2d(c[0]), activation(), _conv_norm(*c)[0])]
        self.preactivation = nn.Sequential(*layers[:2])
        self.residual = nn.Sequential(*layers[2:])
        ends = _ends(convolutions)
        self.shortcut = _conv_norm(*ends)[0] if ends else None
        self.stochastic_depth = stochastic_depth

    def forward(self, x: Tensor) -> Tensor:
        activated = self.preactivation(x)
        return self.stochastic_depth(self.residual(activated)) + (
            x if self.shortcut is None else self.shortcut(activated)
        )


def _ends(convolutions: Sequence[Convolution]) -> Convolution | None:
    """The 1x1 convolution of the shortcut, where the block changes the shape."""
    width, out = convolutions[0][0], convolutions[-1][1]
    stride = max(stride for *_, stride in convolutions)
    return (width, out, 1, stride) if stride > 1 or width != out else None


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # No bias, as the norm after it has one.
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]
