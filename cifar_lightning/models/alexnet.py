"""AlexNet for 32 px images, with batch norm.

A. Krizhevsky, I. Sutskever and G. Hinton, "ImageNet classification with deep convolutional neural networks", 2012
(15.3 % top-5 error on ImageNet). This version, with 3x3 kernels throughout and one hidden layer, follows a tutorial
that published 86.9 % test accuracy on CIFAR-10 (best epoch by validation accuracy; 86.5 % in the last).
"""

from collections.abc import Callable

from torch import Tensor, nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order


class AlexNet(nn.Module):
    """Five blocks of convolution, batch norm, activation, (dropout, pooling); then one hidden layer.

    Shapes: images [N, in_channels, H, W] (32 -> 15 -> 7 -> 3 px by the three poolings); logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        size = input_size
        for _ in range(3):  # poolings
            size = (size - 3) // 2 + 1
        if size < 1:
            raise UserError(f"model=alexnet: nothing is left of a {input_size} px image after three poolings")

        def block(width: int, out_channels: int, *after: nn.Module) -> nn.Sequential:
            conv = nn.Conv2d(width, out_channels, kernel_size=3, padding=1)
            return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation(), *after)

        self.features = nn.Sequential(
            block(in_channels, 96, nn.MaxPool2d(3, stride=2)),
            block(96, 256, nn.MaxPool2d(3, stride=2)),
            block(256, 384, nn.Dropout(0.1)),
            block(384, 384, nn.Dropout(0.3)),
            block(384, 256, nn.Dropout(0.1), nn.MaxPool2d(3, stride=2)),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(256 * size * size, 512),
            nn.BatchNorm1d(512),
            activation(),
            # The tutorial has dropout before ReLU: the same function, as the two commute.
            nn.Dropout(0.1),
            nn.Linear(512, num_classes),
        )
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.features, self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))
