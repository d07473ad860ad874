import pytest
import torch
from helpers.model_configs import parameters
from torch.nn import functional as F

from cifar_lightning.errors import UserError
from cifar_lightning.models.convmixer import ConvMixer


def by_formula(tensors, images, depth, patch, kernel):
    """The network in training mode, from its tensors in order, as the paper's equations: no modules."""
    tensors = iter(tensors)

    def conv(x, **keys):
        return F.conv2d(x, next(tensors), next(tensors), **keys)

    def norm(x):
        return F.batch_norm(F.gelu(x), None, None, next(tensors), next(tensors), training=True)

    z = norm(conv(images, stride=patch))
    for _ in range(depth):
        z = norm(conv(z, padding="same", groups=z.shape[1])) + z
        z = norm(conv(z))
    return F.linear(z.mean((2, 3)), next(tensors), next(tensors))


@pytest.mark.parametrize(("patch", "kernel"), [(2, 5), (1, 3), (4, 9)])
def test_it_computes_the_formula(patch, kernel):
    torch.manual_seed(0)
    network = ConvMixer(width=16, depth=3, patch=patch, kernel=kernel).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected = by_formula(network.parameters(), images, 3, patch, kernel)
    torch.testing.assert_close(network(images), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "depth", "patch", "kernel", "classes"), [(256, 8, 2, 5, 10), (256, 8, 1, 9, 10), (128, 4, 4, 7, 100)]
)
def test_parameters_are_those_of_the_papers_formula(width, depth, patch, kernel, classes):
    h, d, p, k, n, c = width, depth, patch, kernel, classes, 3
    network = ConvMixer(width=width, depth=depth, patch=patch, kernel=kernel, num_classes=classes)
    assert parameters(network) == h * (d * (k**2 + h + 6) + c * p**2 + n + 3) + n


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"patch": 5}, r"model\.patch=5: must divide the image's 32 px: choose from 1, 2, 4, 8, 16$"),
        ({"patch": 0}, r"model\.patch=0: must divide"),
        ({"patch": 8, "input_size": 28}, r"model\.patch=8: must divide the image's 28 px: choose from 1, 2, 4, 7, 14$"),
        ({"kernel": 4}, r"model\.kernel=4: must be odd, such as 5"),
        ({"kernel": -3}, r"model\.kernel=-3: must be odd, such as 1"),
        ({"depth": 0}, r"model\.width, model\.depth: give numbers of at least 1"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys, message):
    with pytest.raises(UserError, match=message):
        ConvMixer(**keys)
