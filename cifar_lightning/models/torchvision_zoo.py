"""Any classifier of torchvision, adapted to small images.

The networks, their papers and their results on ImageNet: pytorch.org/vision/stable/models.html. A tutorial published
70.31 % on CIFAR-10 for `resnet18` with its ImageNet stem after 3 epochs.
"""

from pathlib import Path
from typing import Any, Literal

import torchvision.models
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import Encoder

from cifar_lightning.errors import UserError
from cifar_lightning.models.freezing import Freeze, freeze_all_but, keep_frozen_statistics
from cifar_lightning.models.layers import Layers, in_order
from cifar_lightning.models.torchvision_families import FAMILIES, Family, family_of
from cifar_lightning.models.torchvision_weights import load_pretrained


class TorchvisionClassifier(nn.Module):
    """The network `name` with `num_classes` outputs, on images resized to `image_size` if given.

    `stem="cifar"` makes the first convolution 3x3 with stride 1 and removes the pooling after it. `pretrained` loads
    torchvision's ImageNet weights, or those in a file, except for the head and a first convolution of another shape.
    `freeze` trains only the head ("all_but_head"), or also the last stage ("all_but_last_stage"), and layers without
    pretrained weights; frozen batch norms keep their statistics. `dropout` replaces the network's own probabilities.

    Shapes: images [N, 3 or 1, H, W]; logits [N, num_classes].
    """

    def __init__(
        self,
        *,
        name: str,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        image_size: int | None = None,
        pretrained: bool | str = False,
        freeze: Freeze = "none",
        dropout: float | None = None,
        num_classes: int = 10,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        family = family_of(name)
        size = image_size or input_size
        family.check_size(name, size)
        if stem == "cifar" and not family.stem:
            able = ", ".join(f.names[0] for f in FAMILIES if f.stem)
            raise UserError(f"model.stem=cifar: {name} has no such stem; choose from these families: {able}")
        self.image_size = image_size
        self.aux_weight = family.aux_weight
        # init_weights: torchvision's current default, which it otherwise warns may change.
        aux = {"aux_logits": size >= family.aux_min_size, "init_weights": True} if family.aux_weight else {}
        self.network = torchvision.models.get_model(name, num_classes=num_classes, **aux)
        auxiliary = [module for child, module in self.network.named_children() if "aux" in child.lower()]
        untrained = [_last_layer(module) for module in (self.network, *auxiliary)]
        if stem == "cifar":
            untrained += _use_small_stem(self.network, family)
        if dropout is not None:
            _set_dropout(self.network, name, dropout)
        if pretrained:
            file = Path(pretrained).expanduser() if isinstance(pretrained, str) else None
            load_pretrained(self.network, name, family, untrained, file)
        if freeze != "none":
            trained = untrained + (_last_stage(self.network, family) if freeze == "all_but_last_stage" else [])
            freeze_all_but([parameter for module in trained for parameter in module.parameters()], self)

    def train(self, mode: bool = True) -> "TorchvisionClassifier":
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        # Not this module's __call__, as training calls weighted_heads.
        self.network.compile(*args, **kwargs)

    def layers(self) -> Layers:
        parts: list[nn.Module] = []
        auxiliary: list[nn.Parameter] = []
        for name, child in self.network.named_children():
            if "aux" in name.lower():  # heads, too
                auxiliary += child.parameters()
            else:
                parts += child.children() if isinstance(child, Encoder) else [child]
        layers = in_order(*parts)
        listed = {id(parameter) for layer in layers for parameter in layer} | set(map(id, auxiliary))
        layers[0] += [parameter for parameter in self.parameters() if id(parameter) not in listed]  # tokens, positions
        layers[-1] += auxiliary
        return layers

    def forward(self, images: Tensor) -> Tensor:
        return self.weighted_heads(images)[0][1]

    def weighted_heads(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """(weight, logits) of each head, the main head first; only the main head in evaluation mode."""
        images = images.expand(-1, 3, -1, -1)  # grey ones: these networks take colours
        if self.image_size:
            images = F.interpolate(images, size=self.image_size, mode="bilinear")
        out = self.network(images)
        if isinstance(out, Tensor):
            return [(1.0, out)]
        main, *auxiliary = out
        return [(1.0, main), *((self.aux_weight, logits) for logits in auxiliary if logits is not None)]


def _last_layer(module: nn.Module) -> nn.Module:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def _last_stage(network: nn.Module, family: Family) -> list[nn.Module]:
    stage: list[nn.Module] = []
    for path in family.last_stage:
        parent, _, last = path.rpartition(".")
        if last.endswith(":"):
            stage += list(network.get_submodule(parent).children())[int(last[:-1]) :]
        else:
            stage.append(network.get_submodule(path))
    return stage


def _use_small_stem(network: nn.Module, family: Family) -> list[nn.Module]:
    """Replace the stem by one for small images; returns the new convolution, if any."""
    path, *pool = family.stem
    if pool:
        network.set_submodule(pool[0], nn.Identity())
    conv = network.get_submodule(path)
    assert isinstance(conv, nn.Conv2d)
    if conv.kernel_size == (3, 3):
        conv.stride, conv.padding = (1, 1), (1, 1)
        return []
    small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(path, small)
    return [small]


def _set_dropout(network: nn.Module, name: str, p: float) -> None:
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise UserError(f"model.dropout={p}: {name} has no dropout to set; leave it null")
    for layer in layers:
        layer.p = p
