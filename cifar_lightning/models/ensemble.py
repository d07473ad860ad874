"""Several trained networks as one, whose probabilities are the mean of theirs.

B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive uncertainty estimation using deep
ensembles", 2017 (arXiv 1612.01474).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks for the same classes, each with its own normalization.

    Takes images [N, C, H, W] in [0, 1], not normalized; returns the logarithm of the mean probabilities, [N, K].
    """

    scales: Tensor
    shifts: Tensor

    def __init__(
        self, networks: Sequence[nn.Module], means: Sequence[Sequence[float]], stds: Sequence[Sequence[float]]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        scales = 1 / torch.tensor(stds)[:, :, None, None]
        self.register_buffer("scales", scales)
        self.register_buffer("shifts", -torch.tensor(means)[:, :, None, None] * scales)

    def forward(self, images: Tensor) -> Tensor:
        normalized = [images * scale + shift for scale, shift in zip(self.scales, self.shifts, strict=True)]
        logits = [network(some).float() for network, some in zip(self.networks, normalized, strict=True)]
        return log_mean_probabilities(torch.stack(logits))


def log_mean_probabilities(logits: Tensor) -> Tensor:
    """The logarithm [N, K] of the members' mean probabilities, from their logits [M, N, K]; its softmax are these.

    Finite wherever the logits are: no small probability is rounded to 0.
    """
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))
