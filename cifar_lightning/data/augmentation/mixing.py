"""Mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al. 2019, 1905.04899).

Each image of a batch is mixed with the one before it (`batch.roll(1, 0)`, as in torchvision) by its own random factor,
where torchvision draws one for the batch. Labels are mixed by the same factor: float [B, K] in and out.
"""

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.errors import UserError


class Mixup:
    """Blend: lambda of the image itself, 1 - lambda of its partner, lambda ~ Beta(alpha, alpha).

    Shapes: images [B, C, H, W], uint8 (rounded) or float; parameters float [B], lambda. An image is mixed with
    probability `p`.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0) -> None:
        _check("Mixup", alpha, p)
        self.alpha = alpha
        self.p = p

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return _shares(self.alpha, self.p, n, generator)

    def apply(self, images: Tensor, share: Tensor) -> Tensor:
        values = images if images.is_floating_point() else images.float()
        mixed = _blended(values, share)
        return mixed if images.is_floating_point() else mixed.round_().to(images.dtype)

    def apply_labels(self, targets: Tensor, share: Tensor) -> Tensor:
        return _blended(targets, share)


class CutMix:
    """Paste a box of the partner over the image; labels are mixed by the box's area after clipping at the border.

    The box's centre is uniform and its sides are sqrt(1 - lambda) of the image's, lambda ~ Beta(alpha, alpha).

    Shapes: images [B, C, image_size, image_size], any dtype; parameters int64 [B, 4], (top, left, bottom, right). An
    image is mixed with probability `p`.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0, image_size: int = 32) -> None:
        _check("CutMix", alpha, p)
        self.alpha = alpha
        self.p = p
        self.image_size = image_size

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        size = self.image_size
        share = _shares(self.alpha, self.p, n, generator)
        centre = torch.randint(size, (n, 2), generator=generator, device=generator.device)
        half = (0.5 * (1 - share).sqrt() * size).long()[:, None]  # rounded down, as torchvision does
        return torch.cat([centre - half, centre + half], 1).clamp_(0, size)

    def apply(self, images: Tensor, boxes: Tensor) -> Tensor:
        index = torch.arange(self.image_size, device=images.device)
        top, left, bottom, right = boxes[:, :, None].unbind(1)
        rows, columns = (index >= top) & (index < bottom), (index >= left) & (index < right)
        return torch.where((rows[:, :, None] & columns[:, None])[:, None], images.roll(1, 0), images)

    def apply_labels(self, targets: Tensor, boxes: Tensor) -> Tensor:
        top, left, bottom, right = boxes.unbind(1)
        return _blended(targets, 1 - (bottom - top) * (right - left) / self.image_size**2)


def _check(name: str, alpha: float, p: float) -> None:
    if alpha <= 0:
        raise UserError(f"{name}: alpha={alpha} must be more than 0.")
    if not 0 <= p <= 1:
        raise UserError(f"{name}: p={p} must be a probability between 0 and 1.")


def _shares(alpha: float, p: float, n: int, generator: torch.Generator) -> Tensor:
    """Beta(alpha, alpha) with probability `p`, else 1. From NumPy, as torch's Beta takes no generator."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    rng = np.random.default_rng(int(seed))
    shares = np.where(rng.random(n) < p, rng.beta(alpha, alpha, n), 1.0)
    return torch.from_numpy(shares).float().to(generator.device)


def _blended(values: Tensor, share: Tensor) -> Tensor:
    share = share.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return values * share + values.roll(1, 0) * (1 - share)
