"""ConvMixer: patches, then depthwise and pointwise convolutions in turns, at one size and width.

A. Trockman and J. Z. Kolter, "Patches are all you need?", 2022 (arXiv 2201.09792). ConvMixer-256/8 with patches of 2 px
and 5x5 kernels, 0.6 M parameters, is the network of the authors' github.com/locuslab/convmixer-cifar10: 92.5 % test
accuracy after 25 epochs, above 94 % after 100 with more augmentation.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order
from cifar_lightning.models.patches import check_patch
from cifar_lightning.models.stochastic_depth import stochastic_depths


class ConvMixer(nn.Module):
    """A convolution of patches, mixers, global average pooling, linear layer; the norms follow the activations.

    stochastic_depth: probability that the last mixer's depthwise branch is left out in training; less for those before.

    Shapes: images [N, in_channels, input_size, input_size]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        width: int = 256,
        depth: int = 8,
        patch: int = 2,
        kernel: int = 5,
        stochastic_depth: float = 0.0,
        activation: Callable[[], nn.Module] = nn.GELU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        check_patch(patch, input_size)
        if min(width, depth) < 1:
            raise UserError("model.width, model.depth: give numbers of at least 1")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"model.kernel={kernel}: must be odd, such as {max(1, kernel + 1)}")
        self.stem = nn.Sequential(*_mixed(nn.Conv2d(in_channels, width, patch, stride=patch), activation))
        depths = stochastic_depths(stochastic_depth, depth)
        self.mixers = nn.Sequential(*(Mixer(width, kernel, one, activation) for one in depths))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.stem, self.mixers, self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.mixers(self.stem(images)))


class Mixer(nn.Module):
    """A depthwise convolution with shortcut, which mixes places, then a pointwise one, which mixes channels."""

    def __init__(
        self, width: int, kernel: int, stochastic_depth: StochasticDepth, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.places = nn.Sequential(*_mixed(depthwise, activation))
        self.stochastic_depth = stochastic_depth
        self.channels = nn.Sequential(*_mixed(nn.Conv2d(width, width, 1), activation))

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(self.stochastic_depth(self.places(x)) + x)


def _mixed(conv: nn.Conv2d, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    return [conv, activation(), nn.BatchNorm2d(conv.out_channels)]
