"""Common corruptions of images at five severities, for a whole batch at once.

D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", 2019
(arXiv 1903.12261), with the settings of their CIFAR-10-C for 32 px, in pixels for larger images, too. Of the fifteen,
frost is missing: it needs the authors' photographs. The others follow the definitions, not the authors' files pixel by
pixel: the random draws are ours; so are the resampling of zoom blur, snow and elastic transform, there SciPy's and
OpenCV's, and motion blur, there ImageMagick's.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cifar_lightning.data.warps import gaussian_blurred, plasma, smeared, warped, zoomed

SEVERITIES = (1, 2, 3, 4, 5)
Draws = torch.Generator


def corrupted(images: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """Images uint8 [N, C, H, W] after one of CORRUPTIONS, the same for the same seed; severity: from 1 to 5.

    Values are cut off to bytes, not rounded, as in CIFAR-10-C.
    """
    entropy = [seed, sorted(CORRUPTIONS).index(kind), severity]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    draws = torch.Generator().manual_seed(int(state[0]))
    changed = CORRUPTIONS[kind](images.float() / 255, severity - 1, draws)
    # Where nothing was added, 255 * (x / 255) may lie a rounding error below x.
    return (changed.clamp(0, 1) * 255 + 1e-3).to(torch.uint8)


def gaussian_noise(x: Tensor, level: int, draws: Draws) -> Tensor:
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[level] * torch.randn(x.shape, generator=draws)


def shot_noise(x: Tensor, level: int, draws: Draws) -> Tensor:
    photons = (500, 250, 100, 75, 50)[level]
    return torch.poisson(x * photons, draws) / photons


def impulse_noise(x: Tensor, level: int, draws: Draws) -> Tensor:
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    drawn = torch.rand(x.shape, generator=draws)
    return torch.where(drawn < amount / 2, 0.0, torch.where(drawn < amount, 1.0, x))


def defocus_blur(x: Tensor, level: int, draws: Draws) -> Tensor:
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level]
    reach = 3  # a radius of 1 with its soft edge
    across = torch.arange(-reach, reach + 1)
    disk = (across[:, None] ** 2 + across**2 <= radius**2).float()
    soft = torch.exp(-(torch.arange(-1, 2) ** 2) / (2 * sigma**2))
    soft = soft[:, None] * soft / soft.sum() ** 2
    kernel = F.conv2d((disk / disk.sum())[None, None], soft[None, None], padding=1)
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel)[:, 0].view_as(x)


def glass_blur(x: Tensor, level: int, draws: Draws) -> Tensor:
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[level]
    n, _, height, width = x.shape
    x = gaussian_blurred(x, sigma)
    each = torch.arange(n)
    for _ in range(rounds):
        moves = torch.randint(-1, 1, (2, height, width, n), generator=draws)
        # From the lower right, each pixel becomes the same as one above or to the left: the authors' swap copies.
        for row in range(height - 1, 1, -1):
            for column in range(width - 1, 1, -1):
                down, across = moves[:, row, column]
                x[:, :, row, column] = x[each, :, row + down, column + across]
    return gaussian_blurred(x, sigma)


def motion_blur(x: Tensor, level: int, draws: Draws) -> Tensor:
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level]
    return smeared(x, radius, sigma, 90 * torch.rand(len(x), generator=draws) - 45)


def zoom_blur(x: Tensor, level: int, draws: Draws) -> Tensor:
    steps = (6, 11, 16, 21, 26)[level]
    return (x + sum(zoomed(x, 1 + 0.01 * step) for step in range(steps))) / (steps + 1)


def snow(x: Tensor, level: int, draws: Draws) -> Tensor:
    mean, std, zoom, threshold, radius, sigma, share = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[level]
    flakes = zoomed(mean + std * torch.randn((len(x), 1, *x.shape[2:]), generator=draws), zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(max=1)
    flakes = smeared(flakes, radius, sigma, -45 - 90 * torch.rand(len(x), generator=draws))
    grey = (x * luma(x.shape[1])).sum(1, keepdim=True)
    return share * x + (1 - share) * torch.maximum(x, 1.5 * grey + 0.5) + flakes + flakes.flip(2, 3)


def fog(x: Tensor, level: int, draws: Draws) -> Tensor:
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level]
    highest = x.amax((1, 2, 3), keepdim=True)
    clouds = plasma(len(x), max(x.shape[2:]), decay, draws)[:, None, : x.shape[2], : x.shape[3]]
    return (x + amount * clouds) * highest / (highest + amount)


def brightness(x: Tensor, level: int, draws: Draws) -> Tensor:
    value = x.amax(1, keepdim=True)  # the V of HSV: hue and saturation stay
    lighter = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[level]).clamp(max=1)
    return torch.where(value > 0, x * lighter / value.clamp(min=1e-6), lighter)


def contrast(x: Tensor, level: int, draws: Draws) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + (0.75, 0.5, 0.4, 0.3, 0.15)[level] * (x - mean)


def elastic_transform(x: Tensor, level: int, draws: Draws) -> Tensor:
    strength, sigma, corner = (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[level]
    size = x.shape[-1]
    # Three points around the centre move, and the image with them.
    near, far = size // 2 - size // 3, size // 2 + size // 3
    points = torch.tensor([[far, far, 1.0], [far, near, 1.0], [near, near, 1.0]])
    moved = points[:, :2] + size * corner * (2 * torch.rand(len(x), 3, 2, generator=draws) - 1)
    forward = torch.linalg.solve(points, moved).mT  # [N, 2, 3]
    back = torch.linalg.inv(torch.cat([forward, torch.tensor([0, 0, 1.0]).expand(len(x), 1, 3)], 1))[:, :2]
    x = warped(x, lambda grid: grid @ back[:, None, :, :2].mT + back[:, None, None, :, 2])
    shifts = gaussian_blurred(2 * torch.rand(len(x), 2, *x.shape[2:], generator=draws) - 1, size * sigma, truncate=3)
    return warped(x, lambda grid: grid + size * strength * shifts.permute(0, 2, 3, 1))


def pixelate(x: Tensor, level: int, draws: Draws) -> Tensor:
    small = [int(size * (0.95, 0.9, 0.85, 0.75, 0.65)[level]) for size in x.shape[2:]]
    down = [box_resampling(size, fewer) for size, fewer in zip(x.shape[2:], small, strict=True)]
    up = [box_resampling(fewer, size) for size, fewer in zip(x.shape[2:], small, strict=True)]
    smaller = ((down[0] @ x @ down[1].T) * 255).round() / 255
    return up[0] @ smaller @ up[1].T


def jpeg_compression(x: Tensor, level: int, draws: Draws) -> Tensor:
    quality = (80, 65, 58, 50, 40)[level]
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.stack([torch.from_numpy(through_jpeg(image, quality)) for image in pixels]) / 255


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """An image uint8 [H, W, C] written and read again, float32 [C, H, W]."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file), dtype=np.float32)
    return np.ascontiguousarray(read[None] if read.ndim == 2 else read.transpose(2, 0, 1))


def box_resampling(size: int, new: int) -> Tensor:
    """The matrix [new, size] of Pillow's box filter: each pixel is the mean of those whose centres it covers."""
    scale = size / new
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    away = (torch.arange(size, dtype=torch.float64) + 0.5 - centres[:, None]) / max(scale, 1)
    covered = ((away > -0.5) & (away <= 0.5)).float()
    return covered / covered.sum(1, keepdim=True)


def luma(channels: int) -> Tensor:
    """The weights [C, 1, 1] of a colour image's brightness (ITU-R BT.601)."""
    return torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1 / channels] * channels)[:, None, None]


CORRUPTIONS: dict[str, Callable[[Tensor, int, Draws], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
