"""The network of the CIFAR-10 speed records: whitened patches, then three groups of convolutions.

K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498); its successor with Muon
(github.com/KellerJordan/cifar10-airbench) reaches 94.01 % in 8 epochs, and a wider one with 3 convolutions per group
96.00 % in 45.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order
from cifar_lightning.models.whitening import whitening_filters

SILENT = 1e-2  # responses have a standard deviation of 1, or less where the patches vary little


class SpeedNet(nn.Module):
    """A frozen 2x2 whitening convolution, groups that each halve the image, max pooling, linear layer.

    The whitening filters are computed by `initialize_from(images)`; `init` is for the other layers.

    convolutions: per group; with three or more, all but the first are a residual (He et al. 2015).
    logit_scale: factor of the logits; None for 1 / the last width.
    norm_momentum: weight of the latest batch in the norms' running statistics.

    Shapes: images [N, in_channels, H, W], logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 256, 256),
        convolutions: int = 2,
        logit_scale: float | None = None,
        norm_momentum: float = 0.4,
        activation: Callable[[], nn.Module] = nn.GELU,
        init: Init = "dirac",
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(in_channels, 2 * in_channels * 2 * 2, 2)  # both signs of each direction
        self.activation = activation()
        groups, width = [], self.whitening.out_channels
        for out in widths:
            groups.append(Group(width, out, convolutions, norm_momentum, activation))
            width = out
        self.groups = nn.Sequential(*groups)
        self.pool = nn.AdaptiveMaxPool2d(1)  # over 3x3 of a 32 px image
        self.head = nn.Linear(width, num_classes, bias=False)
        self.logit_scale = logit_scale or 1 / width
        for module in (self.groups, self.head):  # the whitening keeps torch's biases, as in the published network
            initialize(module, init)
        self.whitening.weight.requires_grad_(False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    def initialize_from(self, images: Tensor) -> None:
        """Compute the whitening filters from normalized training images [N, 3, H, W].

        A filter whose response does not vary, such as colour in grey images, gets the bias 0: the norms that follow
        would divide any other constant by a standard deviation of almost 0.
        """
        with torch.no_grad():
            self.whitening.weight.copy_(whitening_filters(images))
            responses = conv2d(images[:500], self.whitening.weight)
            self.whitening.bias[responses.abs().amax((0, 2, 3)) < SILENT] = 0.0  # type: ignore[index]

    def layers(self) -> Layers:
        return in_order(self.whitening, self.groups, self.head)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.groups(self.activation(self._whitened(images))))
        return self.head(features.flatten(1)) * self.logit_scale

    def _whitened(self, images: Tensor) -> Tensor:
        # In full precision: filters of small variance subtract nearly equal pixels and amplify rounding errors.
        device = images.device.type
        with torch.autocast(device, enabled=False):
            responses = self.whitening(images.to(self.whitening.weight.dtype))
        return responses.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else responses


class Group(nn.Module):
    """Convolutions with norm and activation; max pooling after the first, before its norm, where it is cheapest."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        convolutions: int,
        momentum: float,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            _conv(in_channels, out_channels), nn.MaxPool2d(2), BiasNorm(out_channels, momentum), activation()
        )
        layers: list[nn.Module] = []
        for _ in range(convolutions - 1):
            layers += [_conv(out_channels, out_channels), BiasNorm(out_channels, momentum), activation()]
        self.activation = layers.pop()
        self.body = nn.Sequential(*layers)
        self.is_residual = convolutions > 2

    def forward(self, x: Tensor) -> Tensor:
        entry = self.entry(x)
        body = self.body(entry)
        return self.activation(body + entry if self.is_residual else body)


class BiasNorm(nn.BatchNorm2d):
    """Batch norm with a fixed weight of 1, as the next convolution can scale."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__(channels, eps=1e-12, momentum=momentum)
        self.weight.requires_grad_(False)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
