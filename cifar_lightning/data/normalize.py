"""Mean and standard deviation by which the network's side normalizes images in [0, 1]."""

import torch
from torch import Tensor

from cifar_lightning.errors import UserError

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

CHOICES = ("none", "half", "channel", "imagenet")


def normalization(
    name: str, images: Tensor, channel: tuple[Channels, Channels] | None = None
) -> tuple[Channels, Channels]:
    """(mean, standard deviation) of each channel; `channel`: the data set's own, measured on `images` where unknown.

    images: uint8 [N, 3, H, W]. none leaves [0, 1] as it is, half gives [-1, 1], imagenet is what pretrained weights
    expect.
    """
    if name == "none":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if name == "half":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if name == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if name == "channel":
        return channel or measured(images)
    raise UserError(f"data.normalize={name} is none of the choices: {', '.join(CHOICES)}.")


def measured(images: Tensor) -> tuple[Channels, Channels]:
    # From a histogram of the 256 levels: exact, and no float copy of the whole set.
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append((share @ levels).item())
        std.append((share @ (levels - mean[-1]) ** 2).sqrt().item())
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
