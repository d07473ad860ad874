"""What is counted while a network trains, and what is computed once over the test set."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from cifar_lightning.errors import UserError

PENDING = 32  # batches whose answers are compared at once: one by one it takes a tenth of a small network's step


class Sums:
    """Loss and right answers, summed over images where the network runs; read once an epoch, so no step waits."""

    def __init__(self, device: torch.device) -> None:
        # Sums of single precision would lose the last digits of an epoch's loss; MPS has nothing else.
        self.loss = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
        self.images = 0
        self._correct = torch.zeros((), device=device, dtype=torch.int64)
        self._pending: list[tuple[Tensor, Tensor]] = []  # answers and labels that are not compared yet

    @torch.no_grad()
    def add(self, mean_loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Count one batch: the mean loss of its images, logits [B, K], targets int [B] or soft [B, K]."""
        if not len(logits):  # a process with nothing left: the mean of nothing is NaN
            return
        self.loss.add_(mean_loss, alpha=len(logits))
        self.images += len(logits)
        self._pending.append((logits.argmax(1), targets if targets.ndim == 1 else targets.argmax(1)))
        if len(self._pending) == PENDING:
            self._compare()

    @property
    def correct(self) -> Tensor:
        self._compare()
        return self._correct

    @torch.no_grad()
    def _compare(self) -> None:
        if self._pending:
            answers, labels = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
            self._correct.add_((answers == labels).sum())
            self._pending.clear()

    def state(self) -> Tensor:
        """[loss, correct, images], as one tensor that processes can add up."""
        images = torch.tensor(self.images, device=self.loss.device)
        return torch.stack([self.loss, self.correct.to(self.loss), images.to(self.loss)])

    def load(self, state: Tensor) -> None:
        self.loss.copy_(state[0])
        self.correct.copy_(state[1])
        self.images = int(state[2])


def test_metrics(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Every test figure, as plain numbers, from logits [N, K] and labels [N].

    A class without images, or never predicted, scores 0 where its figure would be 0/0, as in scikit-learn.
    Raises UserError for logits that can't be used.
    """
    check_logits(logits, class_names)
    logits, labels = logits.detach().cpu().double(), labels.detach().cpu()
    probabilities = logits.softmax(1)
    k = len(class_names)
    predictions = logits.argmax(1)  # the first of equal maxima, in every figure

    def per_class(metric: Any) -> dict[str, float]:
        return dict(zip(class_names, metric(predictions, labels, k, average="none").tolist(), strict=True))

    recall = per_class(multiclass_recall)
    return {
        "test/loss": cross_entropy(logits, labels).item(),
        "test/acc": (predictions == labels).double().mean().item(),
        "test/top5": multiclass_accuracy(probabilities, labels, k, top_k=min(5, k), average="micro").item(),
        "test/ece": calibration_error(probabilities.amax(1), predictions == labels),
        "test/acc_per_class": recall,
        "test/precision_per_class": per_class(multiclass_precision),
        "test/recall_per_class": dict(recall),
        "test/f1_per_class": per_class(multiclass_f1_score),
        "test/confusion_matrix": multiclass_confusion_matrix(predictions, labels, k).tolist(),
    }


def check_logits(logits: Tensor, class_names: Sequence[str]) -> None:
    """Raise UserError for logits that are not finite, or not one for each class."""
    check_outputs(logits, class_names)
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise UserError(
            f"the network's logits are NaN or infinite for {bad:,} of {len(logits):,} images: its weights are no "
            "usable numbers; take an earlier checkpoint, or train with a lower optimizer.lr"
        )


def check_outputs(logits: Tensor, class_names: Sequence[str]) -> None:
    """Raise UserError for logits that are not one for each class."""
    if logits.shape[1:] != (len(class_names),):
        raise UserError(
            f"the network has {logits.shape[1:].numel()} outputs, but there are {len(class_names)} class names"
        )


def calibration_error(confidences: Tensor, right: Tensor, bins: int = 15) -> float:
    """The mean gap between confidence and accuracy over equal-width bins, weighted by images (Guo et al. 2017).

    By hand, because torchmetrics sums in single precision: off by 2 % where the error is small.
    """
    index = (confidences * bins).ceil().long().clamp(1, bins) - 1  # a bin has its upper edge, not its lower one
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, confidences.double() - right.double())
    return (gaps.abs().sum() / len(confidences)).item()
