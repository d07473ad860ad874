"""Distillation: a network learns from the outputs of trained ones.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from cifar_lightning.training.losses import loss_and_mean

if TYPE_CHECKING:
    from cifar_lightning.training.classifier import ImageClassifier


class Teacher:
    """The mean of trained classifiers' softened probabilities, and the loss that compares a student's logits with it.

    temperature: divides the logits of both. alpha: weight of this loss; the loss of the labels has the rest.
    Not a Module: its weights are neither trained nor part of the student's checkpoints.
    """

    def __init__(self, classifiers: Sequence["ImageClassifier"], temperature: float, alpha: float) -> None:
        self.classifiers = [classifier.eval().requires_grad_(False) for classifier in classifiers]
        self.temperature, self.alpha = temperature, alpha

    def __deepcopy__(self, memo: Any) -> "Teacher":  # a weight average copies the student, and needs no other teacher
        return self

    def to(self, device: torch.device) -> None:
        for classifier in self.classifiers:
            classifier.to(device)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Softened probabilities [N, K] of augmented images [N, C, H, W], as the loader gives them."""
        softened = [(c(images).float() / self.temperature).softmax(1) for c in self.classifiers]
        return torch.stack(softened).mean(0)

    def loss(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """Kullback-Leibler divergence, times the squared temperature so that its gradients keep their size (section 2).

        The paper's cross entropy differs from it by the teacher's entropy, which has no gradient.
        """
        student = log_softmax(logits / self.temperature, 1)
        return kl_div(student, probabilities, reduction="batchmean") * self.temperature**2


def distilled(
    loss: nn.Module, teacher: Teacher | None, targets: Tensor, taught: Tensor | None, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of logits [N, K] for labels and, with a teacher, its probabilities `taught`; and its mean."""
    value, mean = loss_and_mean(loss, logits, targets)
    if teacher is None or taught is None:
        return value, mean
    alpha, distance = teacher.alpha, teacher.loss(logits, taught)
    images = len(logits) if getattr(loss, "reduction", "mean") == "sum" else 1
    return (1 - alpha) * value + alpha * distance * images, (1 - alpha) * mean + alpha * distance
