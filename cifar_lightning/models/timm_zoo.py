"""Any classifier of timm (R. Wightman, github.com/huggingface/pytorch-image-models), fitted to small images.

Its documentation (huggingface.co/docs/timm) names each network's paper and its results on ImageNet.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_lightning.errors import UserError, first_line
from cifar_lightning.models.freezing import Freeze, freeze_all_but, keep_frozen_statistics
from cifar_lightning.models.layers import Layers
from cifar_lightning.models.timm_networks import check_name, create, with_weights

POOLS = ("maxpool", "stem.pool", "features.pool0")  # where timm's networks have the pooling of their stem


class TimmClassifier(nn.Module):
    """The network `name` with `num_classes` outputs, on images resized to `image_size` if given.

    A network that is made for one image size is made for this one. `stem="cifar"` keeps four times the resolution:
    patches of a quarter of the size, or a first convolution with stride 1, 3x3 if it was larger, without pooling
    after it. `pretrained` loads the weights that timm has for the name, or those in a file, except for the head and a
    first convolution of another shape; positions and patches are interpolated, and colours added up for grey images,
    as timm does. `freeze` trains only the head ("all_but_head"), or also the last stage ("all_but_last_stage": of
    transformers the last block), and layers without pretrained weights; frozen batch norms keep their statistics.
    dropout: probability, before the last layer. stochastic_depth: probability that the last branch is left out in
    training; less for those before it.

    Shapes: images [N, in_channels, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        name: str,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        image_size: int | None = None,
        pretrained: bool | str = False,
        freeze: Freeze = "none",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        check_name(name)
        for key, rate in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
            if not 0 <= rate < 1:
                raise UserError(f"model.{key}={rate}: must be a number from 0 to below 1")
        self.image_size = image_size
        keys: dict[str, Any] = {"in_chans": in_channels}
        keys |= {"drop_rate": dropout} if dropout else {}
        keys |= {"drop_path_rate": stochastic_depth} if stochastic_depth else {}
        if stem == "cifar" and (patch := _patch_size(name)):
            keys["patch_size"] = max(1, round(patch / 4))
        size = image_size or input_size
        if pretrained:
            self.network = with_weights(name, pretrained, size, keys)
            self.network.reset_classifier(num_classes)
        else:
            self.network = create(name, size, num_classes=num_classes, **keys)
        new = _use_small_stem(self.network, name) if stem == "cifar" and "patch_size" not in keys else []
        if freeze != "none":
            stage = self._last_stage() if freeze == "all_but_last_stage" else []
            freeze_all_but([*_head(self.network), *new, *stage], self)
        self._check_size(name, torch.Size((2, in_channels, input_size, input_size)))

    def train(self, mode: bool = True) -> "TimmClassifier":
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def layers(self) -> Layers:
        return _grouped(self.network, coarse=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.image_size:
            images = F.interpolate(images, size=self.image_size, mode="bilinear")
        return self.network(images)

    def _last_stage(self) -> list[nn.Parameter]:
        return [parameter for layer in _grouped(self.network, coarse=True)[-2:] for parameter in layer]

    def _check_size(self, name: str, shape: torch.Size) -> None:
        """Raise UserError if nothing is left of the images within the network, or windows don't fit them."""
        if any(tensor.is_meta for tensor in (*self.parameters(), *self.buffers())):
            return  # built to be measured, not to be run
        training = self.training
        try:
            with torch.no_grad():
                logits = self.eval()(torch.zeros(shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"{name} can't take images of {self.image_size or shape[-1]} px ({first_line(error)}): "
                "give another model.image_size, e.g. 224"
            ) from error
        self.train(training)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UserError(f"model.name={name}: this network is no classifier; choose another")


def _head(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the last layer, of several where a network averages heads."""
    head = network.get_classifier()  # type: ignore[operator]
    for module in head if isinstance(head, tuple | list) else [head]:
        yield from module.parameters()


def _grouped(network: nn.Module, coarse: bool) -> Layers:
    """The parameters by layer, or by stage if `coarse`, as timm groups them. Raises UserError where it does not."""
    from timm.models import group_parameters

    if not hasattr(network, "group_matcher"):
        raise UserError(f"timm's {type(network).__name__} has no order of layers, which this needs: leave it out")
    matcher: Any = network.group_matcher
    layer_of = group_parameters(network, matcher(coarse=coarse), reverse=True)
    layers: Layers = [[] for _ in range(max(layer_of.values()) + 1)]
    for key, parameter in network.named_parameters():
        layers[layer_of[key]].append(parameter)
    return layers


def _patch_size(name: str) -> int | None:
    """The side of the patches of a network that divides images into such; None for others."""
    with torch.device("meta"):
        conv = _first_conv(create(name, None))
    return int(conv.stride[0]) if conv is not None and conv.kernel_size == conv.stride != (1, 1) else None


def _first_conv(network: nn.Module) -> nn.Conv2d | None:
    from timm.models import get_model_traits

    path = get_model_traits(network)["first_conv"]
    conv = network.get_submodule(path) if isinstance(path, str) else None
    return conv if isinstance(conv, nn.Conv2d) else None


def _use_small_stem(network: nn.Module, name: str) -> list[nn.Parameter]:
    """Replace the stem by one that keeps the images' size; returns the parameters of a new convolution."""
    conv = _first_conv(network)
    if conv is None or not 1 < conv.stride[0] <= 4:
        raise UserError(f"model.stem=cifar: {name} has no such stem; leave it out")
    for path in POOLS:
        try:
            network.get_submodule(path)
        except AttributeError:
            continue
        network.set_submodule(path, nn.Identity())
    if type(conv) is nn.Conv2d and conv.kernel_size[0] > 3:
        small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(_path_of(network, conv), small)
        return list(small.parameters())
    conv.stride = (1, 1)
    return []


def _path_of(network: nn.Module, wanted: nn.Module) -> str:
    return next(path for path, module in network.named_modules() if module is wanted)
