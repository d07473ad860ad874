from itertools import permutations

import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import chi2_contingency, ks_2samp
from torchvision.transforms import v2

from cifar_lightning.data.augmentation import ColorJitter
from cifar_lightning.errors import UserError

STEPS = (
    v2.functional.adjust_brightness,
    v2.functional.adjust_contrast,
    v2.functional.adjust_saturation,
)


def torchvisions(image, order, factors):
    for step in list(permutations(range(3)))[order]:
        image = STEPS[step](image, factors[step].item())
    return image


@pytest.mark.parametrize(("key", "step"), [("brightness", 0), ("contrast", 1), ("saturation", 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 0), (torch.float32, 1e-6)])
def test_each_jitter_is_torchvisions(key, step, dtype, tolerance):
    jitter, images = ColorJitter(**{key: (0.0, 2.5)}), pictures(300, dtype)
    order, factors = jitter.draw(300, seeded())
    out = jitter.apply(images, (order, factors))
    expected = torch.stack([STEPS[step](i, f.item()) for i, f in zip(images, factors[:, step], strict=True)])
    assert out.dtype == dtype
    difference = (out.double() - expected.double()).abs()
    # A product within a rounding error of a whole number may be cut off on its other side.
    assert (difference > tolerance).float().mean() < 1e-5
    assert difference.max() <= max(tolerance, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 0), (torch.float32, 1e-5)])
def test_jitter_goes_in_the_drawn_order(dtype, tolerance):
    jitter, images = ColorJitter(0.8, 0.8, 0.8), pictures(300, dtype)
    order, factors = jitter.draw(300, seeded())
    out = jitter.apply(images, (order, factors))
    expected = torch.stack([torchvisions(*one) for one in zip(images, order.tolist(), factors, strict=True)])
    assert ((out.double() - expected.double()).abs() > tolerance).float().mean() < 1e-5


def test_jitter_draws_what_torchvision_draws():
    n, keys = 5_000, {"brightness": 0.2, "contrast": (0.5, 0.9), "saturation": 1.5}
    order, factors = ColorJitter(**keys).draw(n, seeded())
    theirs = v2.ColorJitter(**keys)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [theirs.make_params([]) for _ in range(n)]
    for i, key in enumerate(keys):
        assert ks_2samp(factors[:, i], [p[f"{key}_factor"] for p in params]).pvalue > 0.001
    orders = list(permutations(range(3)))
    their_order = [orders.index(tuple(i for i in p["fn_idx"].tolist() if i < 3)) for p in params]
    counts = torch.stack([torch.bincount(torch.as_tensor(o), minlength=6) for o in (order, their_order)])
    assert chi2_contingency(counts).pvalue > 0.001


def test_no_jitter_keeps_the_images():
    jitter, images = ColorJitter(), pictures(5)
    assert torch.equal(jitter.apply(images, jitter.draw(5, seeded())), images)


@pytest.mark.parametrize("value", [-0.1, (0.9, 0.5), (-1, 1)])
def test_jitter_refuses_bad_values(value):
    with pytest.raises(UserError, match="contrast="):
        ColorJitter(contrast=value)
