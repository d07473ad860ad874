"""Count the floating-point operations that a run spends, from the images that went through its networks.

A multiply-add is 2 operations. Counted are convolutions and matrix products, forward and backward, as torch's
FlopCounterMode does and published speed records do; augmentation, norms and the optimizer are not.
"""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# trained: forward and backward; evaluated: forward; taught: forward through each teacher.
Pass = Literal["trained", "evaluated", "taught"]


class Operations:
    """The number of images that went through the network, by kind of pass and image size.

    With several processes, this process's images times their number.
    """

    def __init__(self) -> None:
        self.images: Counter[tuple[Pass, int]] = Counter()

    def add(self, kind: Pass, images: Tensor, processes: int = 1) -> None:
        """Count a batch of images [B, C, H, W]."""
        self.images[kind, images.shape[-1]] += processes * len(images)

    def state(self) -> list[list[str | int]]:
        return [[kind, size, n] for (kind, size), n in self.images.items()]

    def load(self, state: Iterable[Sequence[str | int]]) -> None:
        self.images = Counter({(kind, size): n for kind, size, n in state})  # type: ignore[misc]

    def total(self, network: nn.Module, teachers: Sequence[nn.Module], channels: int, trained: Collection[str]) -> int:
        """Operations of all passes. trained: names of the parameters whose gradients were computed."""
        total = 0
        for (kind, size), n in self.images.items():
            passed = teachers if kind == "taught" else [network]
            total += n * sum(per_image(one, kind, channels, size, trained) for one in passed)
        return total


def per_image(network: nn.Module, kind: Pass, channels: int, size: int, trained: Collection[str]) -> int:
    """Operations of one pass of one image [channels, size, size]."""
    network = copy.deepcopy(network)
    for name, parameter in network.named_parameters():
        # In a pass without gradients torch would use fused attention, which the counter does not know.
        parameter.requires_grad_(kind != "trained" or name in trained).grad = None
    heads = getattr(network, "weighted_heads", None) if kind == "trained" else None
    network.train(heads is not None)  # heads of their own exist in training only
    images = torch.zeros(2, channels, size, size, device=next(network.parameters()).device)
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(), torch.enable_grad(), torch.compiler.set_stance("force_eager"), counter:
        outputs = [logits for _, logits in heads(images)] if heads else [network(images)]
        if kind == "trained":
            torch.stack([output.sum() for output in outputs]).sum().backward()
    return counter.get_total_flops() // 2
