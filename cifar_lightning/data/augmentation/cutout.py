"""Cutout (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552)."""

import torch
from torch import Tensor

from cifar_lightning.errors import UserError


class Cutout:
    """Blank a square of `size` pixels around a random pixel of each image, cut off at the border.

    The square is black, or of `fill` (values in [0, 1] per channel: give the training mean for what the paper does,
    which blanks after normalisation).

    Shapes: images [N, C, H, W], uint8 or float in [0, 1]; parameters float [N, 2], the centre (y, x) in [0, 1).
    """

    def __init__(self, size: int = 16, p: float = 1.0, fill: float | tuple[float, ...] = 0.0) -> None:
        pass
