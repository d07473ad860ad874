"""Loss and accuracy during training, and the metrics of a test."""

from collections.abc import Mapping, Sequence
from statistics import fmean
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

PENDING = 32  # batches compared at once; one by one takes a tenth of a small network's step


class Sums:
    """Sums of loss and correct predictions over images, kept on the device and read once per epoch."""

    def __init__(self, device: torch.device) -> None:
        # Single precision would lose the last digits of an epoch's loss; MPS has no double precision.
        self.loss = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
        self.images = 0
        self._correct = torch.zeros((), device=device, dtype=torch.int64)
        self._pending: list[tuple[Tensor, Tensor]] = []  # predictions and labels, not compared yet

    @torch.no_grad()
    def add(self, mean_loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: the mean loss of its images, logits [B, K], targets int [B] or soft [B, K]."""
        if not len(logits):  # an empty batch of one process, whose mean loss is NaN
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
            predictions, labels = (torch.cat(some) for some in zip(*self._pending, strict=True))
            self._correct.add_((predictions == labels).sum())
            self._pending.clear()

    def state(self) -> Tensor:
        """[loss, correct, images] as one tensor, which can be summed over processes."""
        images = torch.tensor(self.images, device=self.loss.device)
        return torch.stack([self.loss, self.correct.to(self.loss), images.to(self.loss)])

    def load(self, state: Tensor) -> None:
        self.loss.copy_(state[0])
        self.correct.copy_(state[1])
        self.images = int(state[2])


def test_metrics(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """All test metrics as plain numbers, from logits [N, K] and labels [N].

    A metric of a class without images or predictions is 0 where it would be 0/0, as in scikit-learn.
    Raises UserError for logits that can't be used.
    """
    check_logits(logits, class_names)
    logits, labels = logits.detach().cpu().double(), labels.detach().cpu()
    probabilities = logits.softmax(1)
    k = len(class_names)
    predictions = logits.argmax(1)  # the first of equal maxima, in every metric

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


def accuracy_by_frequency(metrics: Mapping[str, Any], train_labels: Tensor) -> dict[str, Any]:
    """Mean accuracy of the classes with many (> 100), medium (20 to 100) and few (< 20) training images.

    As Liu et al. 2019 (arXiv 1904.05160), section 4. Nothing where all classes are of one kind.
    metrics: those of `test_metrics`; train_labels: int64 [N].
    """
    accuracies = metrics["test/acc_per_class"]
    class_counts = torch.bincount(train_labels, minlength=len(accuracies)).tolist()
    kinds = ["many" if count > 100 else "medium" if count >= 20 else "few" for count in class_counts]
    if len(set(kinds)) < 2:
        return {}
    groups: dict[str, list[float]] = {}
    for kind, accuracy in zip(kinds, accuracies.values(), strict=True):
        groups.setdefault(kind, []).append(accuracy)
    means = {f"test/acc_{kind}": fmean(groups[kind]) for kind in ("many", "medium", "few") if kind in groups}
    return means | {"train_images_per_class": dict(zip(accuracies, class_counts, strict=True))}


def check_logits(logits: Tensor, class_names: Sequence[str]) -> None:
    """Raise UserError for logits that are not finite, or not one per class."""
    check_outputs(logits, class_names)
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise UserError(
            f"the network's logits are NaN or infinite for {bad:,} of {len(logits):,} images: use an "
            "earlier checkpoint, or train with a lower optimizer.lr"
        )


def check_outputs(logits: Tensor, class_names: Sequence[str]) -> None:
    """Raise UserError for logits that are not one per class."""
    if logits.shape[1:] != (len(class_names),):
        raise UserError(
            f"the network has {logits.shape[1:].numel()} outputs, but there are {len(class_names)} class names"
        )


def calibration_error(confidences: Tensor, correct: Tensor, bins: int = 15) -> float:
    """The mean gap between confidence and accuracy over equal-width bins, weighted by images (Guo et al. 2017).

    Not from torchmetrics, which sums in single precision: off by 2 % for small errors.
    """
    index = (confidences * bins).ceil().long().clamp(1, bins) - 1  # a bin includes its upper edge
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, confidences.double() - correct.double())
    return (gaps.abs().sum() / len(confidences)).item()
