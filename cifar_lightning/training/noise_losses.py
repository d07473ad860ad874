"""Losses that are robust to wrong labels.

All take logits [N, K] with labels int64 [N] or probabilities [N, K], and return the mean over the images.
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar_lightning.training.long_tail_losses import probabilities


class GeneralizedCrossEntropy(nn.Module):
    """(1 - p^q) / q, p being the target's probability: between cross entropy (q -> 0) and mean absolute error (q = 1).

    Zhang and Sabuncu 2018 (arXiv 1805.07836, equation 6), who use q = 0.7.
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        self.q = q

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        # p^q as exp(q log p): the gradient of a power of 0, where p underflows, is infinite.
        losses = (1 - (self.q * logits.log_softmax(1)).exp()) / self.q
        return (probabilities(targets, logits.shape[1]) * losses).sum(1).mean()


class SymmetricCrossEntropy(nn.Module):
    """alpha times the cross entropy, plus beta times the reverse one, where log 0 is `log_zero`.

    Wang et al. 2019 (arXiv 1908.06112, equation 7): alpha 0.1, beta 1 for CIFAR-10; alpha 6, beta 0.1 for CIFAR-100.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> None:
        super().__init__()
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_targets = probabilities(targets, logits.shape[1]).log().clamp(min=self.log_zero)
        reverse = -(logits.softmax(1) * log_targets).sum(1).mean()
        return self.alpha * cross_entropy(logits, targets) + self.beta * reverse
