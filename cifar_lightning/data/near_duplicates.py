"""Find near-duplicates in a set of images: copies that were shifted, recoloured, recompressed or mirrored.

Small descriptors of all images, compared by matrix products, leave a few candidates in a thousand pairs of a million.
Of those the band-passed pixels are compared at every shift, first at half the size and then at the full one. A band of
frequencies is what tells pictures apart: lower ones are alike in any two images with a bright sky, and higher ones do
not survive JPEG or a shift by half a pixel.

The thresholds were chosen on CIFAR-10, beside the pairs that B. Barz and J. Denzler found by hand with a network's
features ("Do we train on test data?", 2020, arXiv 1902.00423).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIMILAR = 0.85  # of 60 pairs of CIFAR-10 between 0.85 and 0.88 three quarters are copies, from 0.9 on nearly all
# With a small ResNet of 4 epochs a quarter of the pairs that pixels miss are copies: only to be looked at.
EMBEDDED = 0.9
THUMBNAIL = 6  # pixels: fewer see no details, more do not survive a shift
CANDIDATE, COARSE = 0.55, 0.6  # the least similarity of thumbnails, and of images at half the size
TILE = 1024, 8192  # descriptors multiplied at once: 32 MB of products
BATCH = 100  # pairs compared at once: 14 MB of windows at 32 px


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, the most similar first. Shapes: all [M]; `first` is the smaller index."""

    first: Tensor
    second: Tensor
    similarity: Tensor
    mirrored: Tensor

    def __len__(self) -> int:
        return len(self.first)


def near_duplicates(images: Tensor, threshold: float = SIMILAR) -> Pairs:
    """All pairs of images uint8 [N, C, H, W] whose pixels are as similar as the threshold or more.

    The similarity is the correlation of the band-passed pixels, at the best shift by up to an eighth of the image, of
    an image with the other or with its mirror image. Brightness, contrast and tint of either do not matter to it.
    """
    descriptor = Thumbnails(images)
    plain = descriptor(images)
    small = in_batches(lambda some: F.avg_pool2d(band_passed(some), 2), images)
    reach = images.shape[-1] // 8
    found = []
    for mirror in (False, True):
        keys = torch.empty(0, dtype=torch.int64)
        for across, down in ((0, 0), *((x, y) for x in (-1, 1) for y in (-1, 1))):
            views = descriptor(images, mirror=mirror, shift=(across * reach // 2, down * reach // 2))
            for first, second, _ in similar_pairs(plain, views, CANDIDATE):
                keys = torch.cat([keys, first * len(images) + second])
            keys = keys.unique()
        first, second = keys // len(images), keys % len(images)
        for start in range(0, len(keys), BATCH):
            i, j = first[start : start + BATCH], second[start : start + BATCH]
            likely = correlation(small[i], _mirrored(small[j], mirror), reach // 2) > COARSE
            i, j = i[likely], j[likely]
            similarity = correlation(band_passed(images[i]), _mirrored(band_passed(images[j]), mirror), reach, stride=2)
            kept = similarity >= threshold
            if kept.any():
                i, j, similarity = i[kept], j[kept], similarity[kept]
                found.append(Pairs(i, j, similarity, torch.full_like(i, mirror, dtype=torch.bool)))
    return _ranked(found)


def similar_embeddings(features: Tensor, threshold: float = EMBEDDED) -> Pairs:
    """All pairs of images whose features float [N, D] have a cosine of the threshold or more, after whitening.

    Without whitening the features of a trained network say little but the class.
    """
    features = features - features.mean(0)
    embedded = F.normalize(features @ whitening(features))
    found = [
        Pairs(first, second, cosine, torch.zeros_like(first, dtype=torch.bool))
        for first, second, cosine in similar_pairs(embedded, embedded, threshold)
    ]
    return _ranked(found)


class Thumbnails:
    """Describe images by whitened thumbnails, fitted to some images: vectors of length 1."""

    def __init__(self, images: Tensor) -> None:
        self.whitening = whitening(self._thumbnails(images, False, (0, 0)))

    def __call__(self, images: Tensor, *, mirror: bool = False, shift: tuple[int, int] = (0, 0)) -> Tensor:
        """Descriptors float [N, D] of images uint8 [N, C, H, W], moved to the right and down by `shift` pixels."""
        return F.normalize(self._thumbnails(images, mirror, shift) @ self.whitening)

    def _thumbnails(self, images: Tensor, mirror: bool, shift: tuple[int, int]) -> Tensor:
        (across, down), size = shift, images.shape[-1]
        edge = max(map(abs, shift))
        inner = (..., slice(edge - down, edge - down + size), slice(edge - across, edge - across + size))

        def thumbnail(some: Tensor) -> Tensor:
            padded = F.pad(_mirrored(some, mirror).float(), (edge,) * 4, mode="replicate")
            return F.adaptive_avg_pool2d(padded[inner], THUMBNAIL).flatten(1)

        vectors = in_batches(thumbnail, images)
        return F.normalize(vectors - vectors.mean(1, keepdim=True))


def whitening(vectors: Tensor) -> Tensor:
    """The matrix [D, D] that makes vectors [N, D] vary alike in all directions in which they vary at all.

    The fewer vectors there are, the less it does: two of few would be made different because they are alike.
    """
    count, size = vectors.shape
    variances, directions = torch.linalg.eigh((vectors.T @ vectors).double() / count)
    least = max(0.01, size / count) * variances.mean()
    return (directions / (variances + least).clamp(min=1e-12).sqrt()).float()


def similar_pairs(a: Tensor, b: Tensor, threshold: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Indices i < j and the products a[i] · b[j] that exceed the threshold, of vectors [N, D], some at a time."""
    rows, columns = TILE
    for top in range(0, len(a), rows):
        for left in range(top, len(b), columns):
            products = a[top : top + rows] @ b[left : left + columns].T
            i, j = (products > threshold).nonzero().unbind(1)
            upper = j + left > i + top
            i, j = i[upper], j[upper]
            yield i + top, j + left, products[i, j]


def band_passed(images: Tensor) -> Tensor:
    """Images without what is smoother or finer than shapes: a difference of two blurs, of 1 and 2 pixels at 32."""
    fine, coarse = (gaussian_blur(images.shape[-1], part * images.shape[-1] / 32) for part in (1, 2))
    pixels = images.float()
    return fine @ pixels @ fine.T - coarse @ pixels @ coarse.T


def gaussian_blur(size: int, sigma: float) -> Tensor:
    """The matrix [size, size] that blurs a column of pixels; applied from both sides it blurs an image."""
    pixel = torch.arange(size)
    weights = torch.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def correlation(a: Tensor, b: Tensor, reach: int, stride: int = 1) -> Tensor:
    """The best correlation [N] of the central part of each image of `a` with a part of that image of `b`.

    Shapes: a, b [N, C, S, S]. The central part is the image without a border of `reach` pixels, so that there is a part
    of `b` at every shift. stride=2: of band-passed images every second pixel says it all.
    """
    size = a.shape[-1] - 2 * reach
    inner = slice(reach, reach + size, stride)
    part = a[:, :, inner, inner].flatten(1)[:, :, None]
    windows = b.unfold(2, size, 1).unfold(3, size, 1)[..., ::stride, ::stride]
    windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    lengths = windows.norm(dim=2) * part.norm(dim=1)
    return ((windows @ part)[..., 0] / lengths.clamp(min=1)).amax(1)


def in_batches(function: Callable[[Tensor], Tensor], images: Tensor, size: int = BATCH) -> Tensor:
    """The rows float [N, …] of a function for images [N, C, H, W], on the CPU, computed some at a time.

    Their memory is reserved first: small results between large ones that come and go would leave gigabytes of holes.
    """
    rows = torch.empty(len(images), *function(images[:1]).shape[1:])
    for start in range(0, len(images), size):
        rows[start : start + size] = function(images[start : start + size])
    return rows


def _mirrored(images: Tensor, mirror: bool) -> Tensor:
    return images.flip(-1) if mirror else images


def _ranked(found: list[Pairs]) -> Pairs:
    """All pairs together, each once, by descending similarity."""
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for some in found:
        columns = (some.first, some.second, some.similarity, some.mirrored)
        for i, j, similarity, mirrored in zip(*(column.tolist() for column in columns), strict=True):
            best[i, j] = max(best.get((i, j), (-1.0, False)), (similarity, mirrored), key=lambda pair: pair[0])
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    return Pairs(
        torch.tensor([pair[0] for pair, _ in ranked], dtype=torch.int64),
        torch.tensor([pair[1] for pair, _ in ranked], dtype=torch.int64),
        torch.tensor([similarity for _, (similarity, _) in ranked]),
        torch.tensor([mirrored for _, (_, mirrored) in ranked], dtype=torch.bool),
    )
