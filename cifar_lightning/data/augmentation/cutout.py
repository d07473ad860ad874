"""Cutout (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cifar_lightning.errors import UserError


class Cutout:
    """Blank a square of `size` pixels around a random pixel of each image, cut off at the border.

    `fill` is a value in [0, 1], or one per channel (for grey images, their mean); the default is black. The paper fills
    normalized images with 0, the training mean here.

    Shapes: images [N, C, H, W], uint8 or float in [0, 1]; parameters float [N, 2], the centre (y, x) in [0, 1).
    """

    def __init__(self, size: int = 16, fill: float | Sequence[float] = 0.0) -> None:
        values = [fill] if isinstance(fill, int | float) else list(fill)
        if size < 0:
            raise UserError(f"Cutout: size={size} must be 0 or more pixels.")
        if not values or not all(0 <= value <= 1 for value in values):
            raise UserError(f"Cutout: fill={fill} must be a number between 0 and 1, or one per channel.")
        self.size = size
        self.fill = torch.tensor(values)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 2, generator=generator, device=generator.device)

    def apply(self, images: Tensor, centres: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows = self._covered(centres[:, 0], height)
        columns = self._covered(centres[:, 1], width)
        fill = self.fill.to(images.device)[:, None, None]
        if images.shape[1] == 1:
            fill = fill.mean(0, keepdim=True)
        fill = fill if images.is_floating_point() else (fill * 255).round()
        return torch.where((rows[:, :, None] & columns[:, None])[:, None], fill.to(images.dtype), images)

    def _covered(self, centre: Tensor, length: int) -> Tensor:
        first = (centre * length).long()[:, None] - self.size // 2
        index = torch.arange(length, device=centre.device)
        return (index >= first) & (index < first + self.size)
