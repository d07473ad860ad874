"""Selective prediction: how accurate a network is on the images of which it is most certain."""

import torch
from torch import Tensor

from cifar_lightning.evaluation.intervals import Measure, resampled

COVERAGE = 0.9
POINTS = 100  # of the curve


def selective_measures(logits: Tensor, labels: Tensor) -> dict[str, Measure]:
    """The area under the risk-coverage curve (AURC; Geifman et al. 2019, arXiv 1805.08206) and the accuracy on the most
    certain 90 % of the images, by the maximum softmax probability; logits [N, K], labels [N].
    """
    wrong = ranked_mistakes(logits, labels)
    return {
        "aurc": resampled("area under the risk-coverage curve", lambda weights: area(weights, wrong), len(wrong)),
        "acc_at_90": resampled(
            "accuracy at 90 % coverage",
            lambda weights: 1 - risk_at(weights, wrong, COVERAGE),
            len(wrong),
            share_of=round(COVERAGE * len(wrong)),
        ),
    }


def risk_coverage(logits: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """The curve: the error among the most certain images, for each of 100 shares of them."""
    wrong = ranked_mistakes(logits, labels)
    counts = (torch.arange(1, POINTS + 1) * len(wrong) / POINTS).ceil().long()
    return {
        "coverage": (counts / len(wrong)).tolist(),
        "risk": (wrong.cumsum(0)[counts - 1] / counts).tolist(),
    }


def ranked_mistakes(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the prediction is wrong, else 0: float64 [N], the most certain prediction first."""
    # Of log-probabilities: the probabilities of many certain predictions would round to the same 1.
    confidences, predictions = logits.double().log_softmax(1).max(1)
    return (predictions != labels).double()[confidences.argsort(descending=True, stable=True)]


def area(weights: Tensor, wrong: Tensor) -> Tensor:
    """The mean over images of the risk at the coverage that ends with them, [R], for weights [R, N]."""
    covered = weights.cumsum(1)
    risks = (weights * wrong).cumsum(1) / covered.clamp(min=1e-12)
    return (weights * risks).sum(1) / covered[:, -1]


def risk_at(weights: Tensor, wrong: Tensor, coverage: float) -> Tensor:
    """The error among the most certain share of the images, [R], for weights [R, N]."""
    covered = weights.cumsum(1)
    last = (covered < coverage * covered[:, -1:] - 1e-9).sum(1, keepdim=True)
    return ((weights * wrong).cumsum(1).gather(1, last) / covered.gather(1, last))[:, 0]
