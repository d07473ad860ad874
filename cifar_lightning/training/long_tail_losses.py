"""Losses for classes of unequal size. Each takes `class_counts`, the training images of every class, from the data.

All take logits [N, K] with labels int64 [N] or probabilities [N, K], and return the mean over the images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot


def effective_number_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """A weight for each class, (1 - beta) / (1 - beta^n), scaled to a sum of K (Cui et al. 2019, arXiv 1901.05555)."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    weights = (1 - beta) / (1 - beta**counts)
    return (weights / weights.sum() * len(counts)).float()


def probabilities(targets: Tensor, classes: int) -> Tensor:
    """Targets as probabilities [N, K]."""
    return one_hot(targets, classes).float() if targets.ndim == 1 else targets


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy in which an image counts by the weight of its class, for labels and for probabilities.

    torch's own divides by the weights for labels, but by the number of images for probabilities.
    """
    weighted = probabilities(targets, logits.shape[1]) * weight
    return -(weighted * logits.log_softmax(1)).sum() / weighted.sum()


class ClassBalanced(nn.Module):
    """Cross entropy weighted by the inverse effective number of each class's images (Cui et al. 2019)."""

    weight: Tensor

    def __init__(self, class_counts: Sequence[int], beta: float = 0.9999) -> None:
        super().__init__()
        self.register_buffer("weight", effective_number_weights(class_counts, beta), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return weighted_cross_entropy(logits, targets, self.weight)


class Focal(nn.Module):
    """Cross entropy times (1 - p)^gamma, p being the target's probability (Lin et al. 2017, arXiv 1708.02002)."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        rest = (-log_p.expm1()).clamp(min=1e-12)  # 1 - p; a power below 1 has no gradient at 0
        focused = -(rest**self.gamma) * log_p
        return (probabilities(targets, logits.shape[1]) * focused).sum(1).mean()


class LogitAdjusted(nn.Module):
    """Cross entropy of logits + tau log(prior), the classes' shares of the training images (Menon et al. 2021,
    arXiv 2007.07314, equation 10)."""

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__()
        counts = torch.tensor(class_counts, dtype=torch.float64)
        self.register_buffer("adjustment", (tau * (counts / counts.sum()).log()).float(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits + self.adjustment, targets)


class LDAM(nn.Module):
    """Cross entropy with a margin for each class, re-weighted late in training (Cao et al. 2019, arXiv 1906.07413).

    The margin of class j is proportional to n_j^(-1/4), the largest is `max_margin` (equation 13); it is taken off
    the target's logit. From the share `reweight_from` of the epochs on, images count by the effective number of their
    class (deferred re-weighting, section 3.3). `scale` multiplies the logits: the authors use 30 for a last layer of
    normalized weights and features, which the networks here don't have.
    """

    margins: Tensor
    weight: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        max_margin: float = 0.5,
        scale: float = 1.0,
        beta: float = 0.9999,
        reweight_from: float = 0.8,
    ) -> None:
        super().__init__()
        margins = torch.tensor(class_counts, dtype=torch.float64) ** -0.25
        self.register_buffer("margins", (margins * max_margin / margins.max()).float(), persistent=False)
        self.register_buffer("weight", effective_number_weights(class_counts, beta), persistent=False)
        self.scale, self.reweight_from, self.reweights = scale, reweight_from, False

    def start_epoch(self, epoch: int, epochs: float) -> None:
        """Called by ImageClassifier before each epoch, counted from 0."""
        self.reweights = epoch >= self.reweight_from * epochs

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        targets = probabilities(targets, logits.shape[1])
        logits = self.scale * (logits - targets * self.margins)
        return (
            weighted_cross_entropy(logits, targets, self.weight) if self.reweights else cross_entropy(logits, targets)
        )
