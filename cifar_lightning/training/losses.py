"""The training loss. Validation and test always report plain cross entropy."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class CrossEntropy(nn.CrossEntropyLoss):
    """PyTorch's cross entropy of logits [N, K] with labels int64 [N] or probabilities [N, K].

    weight: a weight for each of the K classes.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
        weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            weight=None if weight is None else torch.tensor(weight, dtype=torch.float32),
            label_smoothing=label_smoothing,
            reduction=reduction,
        )


def loss_and_mean(loss: nn.Module, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss that the optimizer minimizes, and its mean over the images.

    A loss may return one value per image, which are averaged, or a sum, if its attribute `reduction` is "sum".
    """
    value = loss(logits, targets)
    value = value.mean() if value.ndim else value
    return value, value / len(logits) if getattr(loss, "reduction", "mean") == "sum" else value


def loss_of_heads(
    network: nn.Module, images: Tensor, loss_and_mean: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of normalized images, its mean over the images, and the logits [N, K] of the (main) head.

    The losses of a network's `weighted_heads` are added up.
    """
    weighted_heads = getattr(network, "weighted_heads", None)
    if weighted_heads is None:
        logits = network(images).float()
        return *loss_and_mean(logits), logits
    heads = [(weight, logits.float()) for weight, logits in weighted_heads(images)]
    loss, mean = torch.stack([torch.stack(loss_and_mean(logits)) * weight for weight, logits in heads]).sum(0).unbind()
    return loss, mean, heads[0][1]
