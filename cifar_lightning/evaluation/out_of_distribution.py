"""Detect images of other data sets by a network's uncertainty about them."""

from functools import partial

import torch
from torch import Tensor

from cifar_lightning.evaluation.intervals import Measure, resampled

# Each is higher for images like those of training.
SCORES = {
    "max_softmax": ("maximum softmax", lambda logits: logits.log_softmax(1).amax(1)),  # Hendrycks and Gimpel 2017
    "energy": ("energy", lambda logits: logits.logsumexp(1)),  # Liu et al. 2020 (arXiv 2010.03759), temperature 1
    "entropy": ("entropy", lambda logits: (logits.softmax(1) * logits.log_softmax(1)).sum(1)),
}
KEPT = 0.95  # of the images of training's kind


def detection_measures(inside: Tensor, outside: Tensor, name: str) -> dict[str, Measure]:
    """AUROC and FPR95 of each score for telling the test set's logits [N, K] from those of other data [M, K].

    AUROC: the chance that an image of the test set scores higher than one of the other data. FPR95: the share of the
    other data that passes for it at the threshold that lets 95 % of the test set pass.
    """
    measures = {}
    own = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).double()
    for key, (words, scored) in SCORES.items():
        scores = torch.cat([scored(logits.double()) for logits in (inside, outside)])
        # From the highest score down; equal scores share a rank.
        ranks = scores.unique(return_inverse=True)[1]
        ranks = ranks.max() - ranks
        for metric, statistic, share_of in (("auroc", auroc, None), ("fpr95", fpr95, len(outside))):
            measures[f"{metric}_{key}_{name}"] = resampled(
                f"{name}: {metric.upper()}, {words}", partial(statistic, ranks=ranks, own=own), len(own), share_of
            )
    return measures


def at_ranks(weights: Tensor, ranks: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of the own images and of the others at each rank, [R, ranks], from weights [R, N + M]."""
    shape = len(weights), int(ranks.max()) + 1
    index = ranks.expand(len(weights), -1)
    return tuple(torch.zeros(shape).double().scatter_add_(1, index, weights * kind) for kind in (own, 1 - own))  # type: ignore[return-value]


def auroc(weights: Tensor, ranks: Tensor, own: Tensor) -> Tensor:
    inside, outside = at_ranks(weights, ranks, own)
    higher = inside.cumsum(1) - inside / 2  # a tie counts half
    return (higher * outside).sum(1) / (inside.sum(1) * outside.sum(1))


def fpr95(weights: Tensor, ranks: Tensor, own: Tensor) -> Tensor:
    inside, outside = at_ranks(weights, ranks, own)
    passed = inside.cumsum(1)
    last = (passed < KEPT * passed[:, -1:] - 1e-9).sum(1, keepdim=True)
    return (outside.cumsum(1).gather(1, last)[:, 0]) / outside.sum(1)
