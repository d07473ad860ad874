"""Sharpness-aware minimization (SAM): gradients from weights moved uphill, for any optimizer.

P. Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021 (arXiv 2010.01412);
adaptive: J. Kwon et al., "ASAM", 2021 (arXiv 2102.11600), whose authors leave biases unscaled and add ETA to the size
of the other weights (github.com/SamsungLabs/ASAM).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ETA = 0.01


class SharpnessAware:
    """Moves a network's weights to where the gradient is to be computed, and back.

    Each group of accumulated gradients, and each process, moves them by its own batch's gradient.
    """

    def __init__(self, network: nn.Module, rho: float, adaptive: bool = False) -> None:
        self.rho, self.adaptive = rho, adaptive
        self._named = dict(network.named_parameters())
        self._before: list[tuple[nn.Parameter, Tensor]] = []

    def move_uphill(self, loss: Tensor) -> None:
        """Move the trainable weights by `rho` along the gradient of `loss`, whose graph is used up."""
        named = {name: parameter for name, parameter in self._named.items() if parameter.requires_grad}
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        used = [(name, p, g) for (name, p), g in zip(named.items(), gradients, strict=True) if g is not None]
        self._before = [(parameter, parameter.detach().clone()) for _, parameter, _ in used]
        sizes = [self._size(name, parameter) for name, parameter, _ in used]
        moves = ascent([gradient for *_, gradient in used], sizes, self.rho)
        with torch.no_grad():
            torch._foreach_add_([parameter for _, parameter, _ in used], moves)

    def move_back(self) -> None:
        """Put the weights back, exactly; nothing happens if they were not moved."""
        with torch.no_grad():
            for parameter, before in self._before:
                parameter.copy_(before)
        self._before = []

    def _size(self, name: str, parameter: Tensor) -> Tensor | None:
        return parameter.detach().abs() + ETA if self.adaptive and not name.endswith("bias") else None


def ascent(gradients: Sequence[Tensor], sizes: Sequence[Tensor | None], rho: float) -> list[Tensor]:
    """The steps rho T² g / |T g|, where T is a weight's size, or 1 where that is None (equation 8 of ASAM)."""
    scaled = [g if size is None else size * g for g, size in zip(gradients, sizes, strict=True)]
    norm = torch.stack([g.norm() for g in scaled]).norm() + 1e-12
    return [rho / norm * (g if size is None else size * g) for g, size in zip(scaled, sizes, strict=True)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norm uses the batch's statistics without adding them to the running ones, which have seen this batch."""
    tracking = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
