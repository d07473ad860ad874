"""The order of a network's layers, which its method `layers` returns for layer-wise learning rates."""

from collections.abc import Iterator

from torch import nn

Layers = list[list[nn.Parameter]]
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def in_order(*parts: nn.Module) -> Layers:
    """The parameters of each layer of `parts`, which the network runs one after another.

    A container of several layers counts as these. Norms and other parts without a filter or matrix belong to the layer
    before them.
    """
    layers: Layers = []
    for part in parts:
        for layer in _opened(part):
            if layers and not _has_weights(layer):
                layers[-1] += layer
            elif layer:
                layers.append(layer)
    return layers


def _opened(part: nn.Module) -> Iterator[list[nn.Parameter]]:
    children = list(part.children()) if isinstance(part, CONTAINERS) else []
    if sum(_has_weights(list(child.parameters())) for child in children) > 1:
        for child in children:
            yield from _opened(child)
    else:
        yield list(part.parameters())


def _has_weights(parameters: list[nn.Parameter]) -> bool:
    return any(parameter.ndim > 1 for parameter in parameters)
