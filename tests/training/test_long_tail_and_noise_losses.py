"""Each loss equals its paper's formula, computed in NumPy, for labels and for the same labels as probabilities."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from cifar_lightning.training.long_tail_losses import LDAM, ClassBalanced, Focal, LogitAdjusted
from cifar_lightning.training.noise_losses import GeneralizedCrossEntropy, SymmetricCrossEntropy

COUNTS = [5_000, 500, 50, 5]
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(64, 4)) * 3, RNG.integers(0, 4, 64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def of_label(values: np.ndarray) -> np.ndarray:
    return values[np.arange(len(LABELS)), LABELS]


def effective_weights(beta: float) -> np.ndarray:
    weights = np.array([(1 - beta) / (1 - beta**n) for n in COUNTS])
    return weights / weights.sum() * len(COUNTS)


def class_balanced() -> float:
    weights = effective_weights(0.99)[LABELS]
    return float((weights * -of_label(log_softmax(LOGITS))).sum() / weights.sum())


def focal() -> float:
    log_p = of_label(log_softmax(LOGITS))
    return float((-((1 - np.exp(log_p)) ** 1.5) * log_p).mean())


def logit_adjusted() -> float:
    prior = np.array(COUNTS) / sum(COUNTS)
    return float(-of_label(log_softmax(LOGITS + 0.7 * np.log(prior))).mean())


def margined() -> np.ndarray:
    margins = np.array(COUNTS) ** -0.25
    margins *= 0.4 / margins.max()
    moved = LOGITS.copy()
    moved[np.arange(len(LABELS)), LABELS] -= margins[LABELS]
    return -of_label(log_softmax(2 * moved))


def generalized() -> float:
    return float(((1 - np.exp(of_label(log_softmax(LOGITS))) ** 0.6) / 0.6).mean())


def symmetric() -> float:
    log_p = log_softmax(LOGITS)
    reverse = 4 * (1 - np.exp(of_label(log_p)))  # -sum of p log t, where log t is 0 for the label and -4 elsewhere
    return float((-0.3 * of_label(log_p) + 0.8 * reverse).mean())


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (ClassBalanced(COUNTS, beta=0.99), class_balanced()),
        (Focal(gamma=1.5), focal()),
        (LogitAdjusted(COUNTS, tau=0.7), logit_adjusted()),
        (LDAM(COUNTS, max_margin=0.4, scale=2.0), float(margined().mean())),
        (GeneralizedCrossEntropy(q=0.6), generalized()),
        (SymmetricCrossEntropy(alpha=0.3, beta=0.8), symmetric()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_loss_is_its_papers_formula(loss, expected):
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    soft = one_hot(labels, 4).double()
    assert loss.double()(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert loss(logits, soft).item() == pytest.approx(loss(logits, labels).item(), rel=1e-6)
    mixed = 0.3 * soft + 0.7 * soft.roll(1, 0)
    logits.requires_grad_()
    loss(logits, mixed).backward()
    assert logits.grad.isfinite().all()


def test_ldam_reweights_late_in_training():
    loss = LDAM(COUNTS, max_margin=0.4, scale=2.0, beta=0.99, reweight_from=0.75).double()
    weights = effective_weights(0.99)[LABELS]
    reweighted = float((weights * margined()).sum() / weights.sum())
    for epoch, expected in ((0, margined().mean()), (14, margined().mean()), (15, reweighted), (19, reweighted)):
        loss.start_epoch(epoch, 20)
        assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)).item() == pytest.approx(expected, rel=1e-6)
