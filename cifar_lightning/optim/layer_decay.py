"""Layer-wise learning rates: the last layer has the whole one, each layer before it a fixed share of the next one's.

As for fine-tuning ELECTRA (K. Clark et al., 2020, arXiv 2003.10555, appendix) and BEiT (H. Bao et al., 2021, arXiv
2106.08254): the layers near the images, whose features are the most general, change the least.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cifar_lightning.errors import UserError
from cifar_lightning.models.layers import Layers, in_order

SHARE = "layer_share"  # key of a parameter group while the optimizer is built


def layers_of(network: nn.Module, decay: float) -> Layers:
    """The parameters of each layer, from the images to the classes: what the network's method `layers` returns.

    An nn.Sequential needs none. Raises UserError for a network without the method, or with one layer only, and if the
    method leaves out a parameter that is trained.
    """
    chosen, name = f"optimizer.layer_decay={decay}", type(network).__name__
    if not hasattr(network, "layers") and not isinstance(network, nn.Sequential):
        raise UserError(
            f"{chosen} can't be used with {name}, which has no order of layers: give it a method `layers` that returns "
            "a list of its parameters for each layer, from the images to the classes"
        )
    layers: Layers = network.layers() if hasattr(network, "layers") else in_order(network)  # type: ignore[operator]
    listed = {id(parameter) for layer in layers for parameter in layer}
    for key, parameter in network.named_parameters():
        if parameter.requires_grad and id(parameter) not in listed:
            raise UserError(f"{chosen} can't be used with {name}: its method `layers` leaves out {key}")
    if len(layers) < 2:
        raise UserError(f"{chosen} can't be used with {name}: it has one layer only")
    return layers


def divided(groups: Sequence[Mapping[str, Any]], layers: Layers, decay: float) -> list[dict[str, Any]]:
    """The parameter groups, each divided by layer, the last layer first; see `scale_rates`.

    A group with a learning rate of its own keeps it, and is not divided.
    """
    below = {id(parameter): n for n, layer in enumerate(reversed(layers)) for parameter in layer}
    parts = []
    for group in groups:
        if "lr" in group:
            parts.append(dict(group))
            continue
        for n in range(len(layers)):
            if members := [parameter for parameter in group["params"] if below[id(parameter)] == n]:
                parts.append({**group, "params": members, SHARE: decay**n})
    return parts


def scale_rates(optimizer: Optimizer) -> None:
    """Give each group of `divided` its share of the learning rate that the optimizer's class has set."""
    for group in optimizer.param_groups:
        share = group.pop(SHARE, 1.0)
        group["lr"] *= share
