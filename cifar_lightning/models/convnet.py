"""The classic small CNNs, which differ only in their sizes: convolutions with pooling, then hidden layers.

The plan is that of LeNet-5: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
recognition", 1998 (0.95 % test error on MNIST). On CIFAR-10 the tutorials that these configs follow published 53 %
(tutorial_net, 2 epochs) to 70.7 % (lenet3, 12 epochs) test accuracy; see the experiment files.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.initialization import Init, initialize
from cifar_lightning.models.layers import Layers, in_order

# Monotonic activations commute with max pooling. After pooling by 2 they process a quarter of the values, which saves a
# tenth of a step of lenet3 on a CPU.
MONOTONIC = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity)


class ConvNet(nn.Module):
    """Blocks of convolution, (batch norm), activation, max pooling; then of linear, activation, (dropout).

    `kernel`, `stride` and `padding` are one number for all convolutions, or a list with one for each. Some of the
    tutorials have dropout before ReLU, which is the same function: ReLU commutes with a scaling by 0 or 1 / (1 - p).

    Shapes: images [N, in_channels, input_size, input_size]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        hidden: Sequence[int],
        kernel: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        pooling: int = 2,
        batch_norm: bool = False,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        hidden_activation: Callable[[], nn.Module] | None = None,
        init: Init = "default",
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        if any(size < 1 for size in (*channels, *hidden)):
            raise UserError("model.channels, model.hidden: give sizes of at least 1")
        hidden_activation = hidden_activation or activation
        kernels, strides, paddings = (
            _for_each(name, value, len(channels))
            for name, value in (("kernel", kernel), ("stride", stride), ("padding", padding))
        )

        features: list[nn.Module] = []
        width, size = in_channels, input_size
        for out, k, s, p in zip(channels, kernels, strides, paddings, strict=True):
            features.append(nn.Conv2d(width, out, k, s, p))
            if batch_norm:
                features.append(nn.BatchNorm2d(out))
            features += _pooled(activation(), nn.MaxPool2d(pooling))
            width, size = out, ((size + 2 * p - k) // s + 1) // pooling
            if size < 1:
                raise UserError(
                    f"model.channels: nothing is left of a {input_size} px image after the convolution to {out};"
                    " use fewer convolutions, a smaller kernel, stride or pooling, or more padding"
                )
        self.features = nn.Sequential(*features, nn.Flatten())

        classifier: list[nn.Module] = []
        width *= size * size
        for out in hidden:
            classifier += [nn.Linear(width, out), hidden_activation()]
            if dropout:
                classifier.append(nn.Dropout(dropout))
            width = out
        self.classifier = nn.Sequential(*classifier, nn.Linear(width, num_classes))
        initialize(self, init)

    def layers(self) -> Layers:
        return in_order(self.features, self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


def _pooled(activation: nn.Module, pool: nn.Module) -> list[nn.Module]:
    """Pooling before a monotonic activation, else after it."""
    return [pool, activation] if isinstance(activation, MONOTONIC) else [activation, pool]


def _for_each(name: str, value: int | Sequence[int], layers: int) -> Sequence[int]:
    if isinstance(value, int):
        return [value] * layers
    if len(value) != layers:
        raise UserError(
            f"model.{name} has {len(value)} entries for {layers} model.channels: give one number, or one for each"
        )
    return value
