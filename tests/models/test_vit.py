import pytest
import torch
from helpers.model_configs import parameters
from torch import nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import Encoder
from torchvision.transforms.v2.functional import affine

from cifar_lightning.errors import UserError
from cifar_lightning.models.vit import Attention, Branch, Patches, VisionTransformer

PLAIN = {"shifted_patches": False, "local_attention": False, "layer_scale": None}


class Torchvisions(nn.Module):
    """torchvision's encoder behind its convolution of patches, with the mean of all instead of a class token."""

    def __init__(self, patch, width, depth, heads, hidden):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, stride=patch)
        self.encoder = Encoder((32 // patch) ** 2, depth, heads, width, hidden, 0.0, 0.0, norm_layer=nn.LayerNorm)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.encoder(self.conv_proj(images).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("patch", [4, 8])
def test_without_the_additions_it_computes_what_torchvisions_does(patch):
    torch.manual_seed(0)
    sizes = {"patch": patch, "width": 24, "depth": 3, "heads": 4, "hidden": 40}
    ours, theirs = VisionTransformer(**sizes, **PLAIN).double(), Torchvisions(**sizes).double()
    weights = ours.state_dict()
    linear = weights["patches.linear.weight"]
    weights["patches.linear.weight"] = linear.view(24, 3, patch, patch)
    # torchvision has the positions behind the patches, in its encoder, and we before them.
    ordered = {key: weights[key] for key in ("patches.linear.weight", "patches.linear.bias", "positions")} | weights
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ordered.values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-6, atol=1e-6)


def test_local_attention_leaves_out_the_patch_itself_and_has_a_temperature_per_head():
    torch.manual_seed(0)
    attention = Attention(12, 3, local=True).double()
    attention.scale.data.uniform_(0.1, 2)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, v = attention.qkv(tokens).chunk(3, dim=-1)
    mixed = torch.zeros_like(tokens)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        for image in range(2):
            similarity = q[image, :, part] @ k[image, :, part].T * attention.scale[head].item()
            for one in range(7):
                others = [token for token in range(7) if token != one]
                shares = similarity[one, others].softmax(0)
                mixed[image, one, part] = shares @ v[image, others, part]
    torch.testing.assert_close(attention(tokens), attention.out(mixed), rtol=1e-6, atol=1e-6)


def test_temperatures_begin_as_in_plain_attention():
    torch.manual_seed(0)
    local = Attention(12, 3, local=True)
    assert local.scale.flatten().tolist() == pytest.approx([4**-0.5] * 3)


@pytest.mark.parametrize("patch", [4, 2])
def test_patches_are_of_the_image_and_its_diagonal_shifts_with_zeros_outside(patch):
    torch.manual_seed(0)
    patches = Patches(3, patch, 10, shifted=True)
    images, by = torch.randn(2, 3, 8, 8), patch // 2
    shifts = [
        affine(images, angle=0.0, translate=[x, y], scale=1.0, shear=[0.0, 0.0])
        for y, x in ((by, by), (by, -by), (-by, by), (-by, -by))
    ]
    pixels = F.unfold(torch.cat([images, *shifts], 1), patch, stride=patch).transpose(1, 2)
    torch.testing.assert_close(patches(images), patches.linear(F.layer_norm(pixels, pixels.shape[-1:])))


def test_layer_scale_multiplies_the_branch():
    branch = Branch(nn.Linear(6, 6), 6, 0.1, nn.Identity())
    branch.scale.data.copy_(torch.arange(6.0))
    tokens = torch.randn(2, 3, 6)
    added = branch.branch(F.layer_norm(tokens, (6,))) * torch.arange(6.0)
    torch.testing.assert_close(branch(tokens), tokens + added)


# Lee et al. 2021 with ViT and SL-ViT for Tiny-ImageNet (64 px, patches of 8, 200 classes), in millions.
@pytest.mark.parametrize(("keys", "published"), [(PLAIN, 2.8), ({"layer_scale": None}, 2.9)])
def test_parameters_are_the_papers(keys, published):
    with torch.device("meta"):
        network = VisionTransformer(input_size=64, patch=8, num_classes=200, **keys)
    assert parameters(network) / 1e6 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"patch": 5}, r"model\.patch=5: must divide the image's 32 px: choose from 1, 2, 4, 8, 16$"),
        ({"patch": 32}, r"model\.patch=32: must divide"),  # one patch has no others to attend to
        ({"heads": 7}, r"model\.heads=7: must divide model\.width=192"),
        ({"heads": 0}, r"model\.heads, model\.hidden: give numbers of at least 1"),
        ({"stochastic_depth": 1.0}, r"model\.stochastic_depth=1\.0: must be"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys, message):
    with pytest.raises(UserError, match=message):
        VisionTransformer(**keys)
