"""The image sizes, stems and last stages of torchvision's classifiers.

Plain data, without torch, so that a name can be checked before torch is imported. Every entry is tested against the
networks themselves. torchvision's documentation names each network's paper.
"""

import difflib
from dataclasses import dataclass

from cifar_lightning.errors import UserError


@dataclass(frozen=True)
class Family:
    """Networks of one design. Paths are for `nn.Module.get_submodule`; `path.-3:` is the last three children."""

    names: tuple[str, ...]
    last_stage: tuple[str, ...]  # the lowest resolution; for AlexNet and VGG the fully connected layers
    stem: tuple[str, ...] = ()  # first convolution and, if any, first pooling: replaced by stem=cifar
    min_size: int = 1  # smaller images vanish in the poolings
    exact_size: bool = False  # larger images are not possible either
    made_for: int = 224
    aux_weight: float = 0.0  # weight of auxiliary heads in the training loss
    aux_min_size: int = 0  # smaller images vanish in the auxiliary heads

    def check_size(self, name: str, size: int) -> None:
        """Raise UserError if networks of this family can't take images of `size` px."""
        if self.exact_size and size != self.made_for:
            raise UserError(f"{name} takes images of {self.made_for} px only: give model.image_size={self.made_for}")
        if size < self.min_size:
            raise UserError(
                f"{name} can't take images of {size} px: give model.image_size, "
                f"at least {self.min_size}; it was designed for {self.made_for}"
            )


def _family(names: str, last_stage: str, stem: str = "", **sizes: float) -> Family:
    return Family(tuple(names.split()), tuple(last_stage.split()), tuple(stem.split()), **sizes)  # type: ignore[arg-type]


FAMILIES = (
    _family("alexnet", "classifier", min_size=63),
    _family("vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn", "classifier", min_size=32),
    _family(
        "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d "
        "wide_resnet50_2 wide_resnet101_2",
        "layer4",
        "conv1 maxpool",
    ),
    _family("squeezenet1_0 squeezenet1_1", "features.12", "features.0 features.2", min_size=21),
    _family(
        "densenet121 densenet161 densenet169 densenet201",
        "features.denseblock4 features.norm5",
        "features.conv0 features.pool0",
        min_size=29,
    ),
    # Szegedy et al. 2014, section 5: "weighted by 0.3".
    _family("googlenet", "inception5a inception5b", "conv1.conv maxpool1", min_size=15, aux_weight=0.3),
    # Szegedy et al. 2015 name no weight; their code had 0.4 (tensorflow/models, inception_model.py, aux_loss).
    _family("inception_v3", "Mixed_7a Mixed_7b Mixed_7c", min_size=75, made_for=299, aux_weight=0.4, aux_min_size=299),
    _family(
        "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0", "stage4 conv5", "conv1.0 maxpool"
    ),
    _family("mobilenet_v2", "features.-5:", "features.0.0"),
    _family("mobilenet_v3_small mobilenet_v3_large", "features.-4: classifier", "features.0.0"),
    _family("mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3", "layers.-5:", "layers.0"),
    _family(
        "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 "
        "efficientnet_b6 efficientnet_b7 efficientnet_v2_m efficientnet_v2_l",
        "features.-3:",
        "features.0.0",
    ),
    _family("efficientnet_v2_s", "features.-2:", "features.0.0"),
    _family(
        "regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf "
        "regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf "
        "regnet_y_128gf",
        "trunk_output.block4",
        "stem.0",
    ),
    _family(
        "convnext_tiny convnext_small convnext_base convnext_large", "features.6 features.7 classifier", min_size=32
    ),
    _family("swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b", "features.6 features.7 norm", min_size=4),
    _family("vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14", "encoder.layers.-1: encoder.ln", exact_size=True),
    _family("maxvit_t", "blocks.3 classifier", exact_size=True),
)
NAMES = tuple(sorted(name for family in FAMILIES for name in family.names))


def family_of(name: str) -> Family:
    """The family of a torchvision classifier. Raises UserError for an unknown name, with the nearest one."""
    for family in FAMILIES:
        if name in family.names:
            return family
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(NAMES)}"
    raise UserError(f"model.name={name}: torchvision has no such classifier; {hint}")
