"""The mean and standard deviation for normalizing images in [0, 1]."""

from typing import Literal

import torch
from torch import Tensor

from cifar_lightning.errors import UserError

Normalization = Literal["none", "half", "channel", "imagenet"]
Channels = tuple[float, ...]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


def normalization(
    name: Normalization, images: Tensor, channel: tuple[Channels, Channels] | None = None
) -> tuple[Channels, Channels]:
    """(mean, standard deviation) of each channel.

    none keeps [0, 1], half gives [-1, 1], imagenet is what pretrained weights expect, channel the data set's own,
    measured on `images`, uint8 [N, C, H, W], where unknown.
    """
    channels = images.shape[1]
    if name == "none":
        return (0.0,) * channels, (1.0,) * channels
    if name == "half":
        return (0.5,) * channels, (0.5,) * channels
    if name == "imagenet":
        if channels != len(IMAGENET_MEAN):
            raise UserError("data.normalize=imagenet needs colour images: add data.channels=3")
        return IMAGENET_MEAN, IMAGENET_STD
    return channel if channel and channels == len(channel[0]) else measured(images)


def measured(images: Tensor) -> tuple[Channels, Channels]:
    # From a histogram of the 256 levels: exact, and no float copy of the whole set.
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append((share @ levels).item())
        std.append((share @ (levels - mean[-1]) ** 2).sqrt().item())
    return tuple(mean), tuple(std)
