"""Compute filters that whiten image patches: a first convolution from data, not trained.

From the fast CIFAR-10 networks of D. Page, "How to train your ResNet 8: bag of tricks", 2019, and K. Jordan, "94% on
CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498, section 3.2).
"""

import torch
from torch import Tensor


def whitening_filters(images: Tensor, size: int = 2, epsilon: float = 5e-4) -> Tensor:
    """Filters [2 K, C, size, size], K = C size²: the principal directions of all patches, and their negatives.

    Each is divided by sqrt(variance + epsilon); the largest variance comes first. images: normalized, [N, C, H, W].
    Their responses to the first K filters are uncorrelated, with variance 1 where the patches vary by much more than
    epsilon. Variances are about 0, not about the mean, as in the authors' code.
    """
    channels, total = images.shape[1], 0
    second_moment = torch.zeros(channels * size**2, channels * size**2, dtype=torch.float64)
    for some in images.split(500):  # patches hold each pixel size² times
        patches = some.double().unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        second_moment += (patches.T @ patches).cpu()
        total += len(patches)
    variances, directions = torch.linalg.eigh(second_moment / total)
    filters = (directions / (variances + epsilon).sqrt()).T.flip(0)
    return torch.cat([filters, -filters]).to(images).view(-1, channels, size, size)
