"""Freeze layers of a pretrained network."""

from collections.abc import Collection
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Freeze = Literal["none", "all_but_head", "all_but_last_stage"]


def freeze_all_but(trained: Collection[nn.Parameter], network: nn.Module) -> None:
    """Compute no gradients but for the parameters in `trained`."""
    chosen = set(map(id, trained))
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


def keep_frozen_statistics(network: nn.Module) -> None:
    """Put frozen batch norms into evaluation mode, in which they use and keep the statistics they have."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
