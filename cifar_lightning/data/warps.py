"""Blur, zoom and bend batches of images [N, C, H, W], and draw clouds: what corruptions are made of."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blurred(x: Tensor, sigma: float, truncate: float = 4) -> Tensor:
    """Blurred by a Gaussian that is cut off after `truncate` standard deviations, as by scipy.ndimage.

    Beyond the border the image is repeated backwards, its last pixel twice.
    """
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return x.clone()
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights = weights / weights.sum()
    rows, columns = (blurring(size, weights) for size in x.shape[2:])
    return rows @ x @ columns.T


def blurring(size: int, weights: Tensor) -> Tensor:
    """The matrix [size, size] of a convolution with these weights [2 * reach + 1] and mirrored borders."""
    reach = len(weights) // 2
    positions = torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)
    folded = positions.remainder(2 * size)
    folded = torch.where(folded < size, folded, 2 * size - 1 - folded)
    return torch.zeros(size, size).scatter_add_(1, folded, weights.expand(size, -1).contiguous())


def smeared(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Motion blur: each pixel a weighted mean of those behind it, at an angle [N] of each image, 0 is to the right.

    The weights fall off like one half of a Gaussian over 2 * radius + 1 pixels; borders are repeated.
    """
    steps = torch.arange(2 * radius + 1)
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    angles = degrees * math.pi / 180
    height, width = x.shape[2:]
    out = torch.zeros_like(x)
    each = torch.arange(len(x))[:, None, None]
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        if weight > 1e-4:  # less than a thirtieth of a grey level
            across, down = (step * angles.cos()).round().long(), (step * angles.sin()).round().long()
            rows = (torch.arange(height) + down[:, None]).clamp(0, height - 1)
            columns = (torch.arange(width) + across[:, None]).clamp(0, width - 1)
            out += weight * x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return out


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The centre of each image, enlarged to its size."""
    centre = torch.tensor([(size - 1) / 2 for size in (x.shape[3], x.shape[2])])
    return warped(x, lambda grid: centre + (grid - centre) / factor)


def warped(x: Tensor, source: Callable[[Tensor], Tensor]) -> Tensor:
    """Each pixel taken from elsewhere, between pixels bilinearly, beyond the border from the mirrored image.

    source: from the pixels' (x, y) [H, W, 2] to where they are taken from, [H, W, 2] or [N, H, W, 2].
    """
    height, width = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = source(torch.stack([columns, rows], -1).float())
    scaled = 2 * places / torch.tensor([width - 1, height - 1]) - 1
    grid = scaled.expand(len(x), height, width, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def plasma(n: int, size: int, decay: float, draws: torch.Generator) -> Tensor:
    """Clouds [n, S, S] from 0 to 1 by the diamond-square algorithm; S: the power of two from `size` on.

    decay: by how much the noise shrinks from one scale to the next finer one.
    """
    side = 2 ** math.ceil(math.log2(size))
    clouds, step, noise = torch.zeros(n, side, side), side, 100.0 * 100.0

    def mean_and_noise(total: Tensor, noise: float) -> Tensor:
        return total / 4 + noise * (2 * torch.rand(total.shape, generator=draws) - 1)

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = mean_and_noise(pairs + pairs.roll(-1, 2), noise)
        clouds[:, half::step, half::step] = centres
        beside = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        clouds[:, ::step, half::step] = mean_and_noise(beside, noise)
        above = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        clouds[:, half::step, ::step] = mean_and_noise(above, noise)
        step, noise = half, noise / decay
    clouds -= clouds.amin((1, 2), keepdim=True)
    return clouds / clouds.amax((1, 2), keepdim=True)
