"""Horizontal flips."""

import torch
from torch import Tensor

from cifar_lightning.errors import UserError


class HorizontalFlip:
    """Mirror each image with probability `p`, independently.

    Shapes: images [N, C, H, W], any dtype; parameters bool [N].
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise UserError(f"HorizontalFlip: p={p} must be a probability between 0 and 1.")
        self.p = p

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, generator=generator, device=generator.device) < self.p

    def apply(self, images: Tensor, flipped: Tensor) -> Tensor:
        columns = torch.arange(images.shape[-1], device=images.device)
        columns = torch.where(flipped[:, None], columns.flip(0), columns)
        # A gather moves each byte once: twice as fast on a CPU as choosing between the images and their mirror images.
        return images.gather(3, columns[:, None, None].expand(images.shape))


class AlternatingFlip(HorizontalFlip):
    """Mirror each image with probability `p` in the first epoch, then alternate between the image and its mirror image.

    Any two consecutive epochs thus contain both (Jordan 2024, arXiv 2404.00498, section 3.6).

    Shapes: as HorizontalFlip's.
    """

    def draw_by_image(self, n: int, generator: torch.Generator, epoch: int) -> Tensor:
        return self.draw(n, generator) ^ (epoch % 2 == 1)
