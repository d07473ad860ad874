import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import chi2_contingency, ks_2samp
from torchvision.transforms import v2

from cifar_lightning.data.augmentation import RandomAffine
from cifar_lightning.errors import UserError

WIDE = {"degrees": (-170, 60), "translate": (0.2, 0.4), "scale": (0.5, 1.7), "shear": (-30, 20, -10, 35)}


def torchvisions(image, parameters, interpolation):
    angle, x, y, scale, shear_x, shear_y = parameters.tolist()
    height, width = image.shape[-2:]
    mode = v2.InterpolationMode(interpolation)
    move = [round(x * width), round(y * height)]
    return v2.functional.affine(image, angle, move, scale, [shear_x, shear_y], interpolation=mode)


@pytest.mark.parametrize("shape", [(32, 32), (32, 23)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_nearest_affine_is_torchvisions(dtype, shape):
    affine, images = RandomAffine(**WIDE), pictures(200, dtype)[..., : shape[1]]
    parameters = affine.draw(len(images), seeded())
    out = affine.apply(images, parameters)
    expected = torch.stack([torchvisions(*pair, "nearest") for pair in zip(images, parameters, strict=True)])
    # Coordinates halfway between two pixels may be rounded to the other one.
    assert (out != expected).float().mean() < 1e-4


@pytest.mark.parametrize("shape", [(32, 32), (32, 23)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 1), (torch.float32, 1e-4)])
def test_bilinear_affine_is_torchvisions(dtype, tolerance, shape):
    affine, images = RandomAffine(**WIDE, interpolation="bilinear"), pictures(200, dtype)[..., : shape[1]]
    parameters = affine.draw(len(images), seeded())
    out = affine.apply(images, parameters)
    expected = torch.stack([torchvisions(*pair, "bilinear") for pair in zip(images, parameters, strict=True)])
    assert out.dtype == dtype
    assert (out.double() - expected.double()).abs().max() <= tolerance


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_affine_at_rest_keeps_the_images(interpolation):
    affine, images = RandomAffine(interpolation=interpolation), pictures(5)
    assert torch.equal(affine.apply(images, affine.draw(5, seeded())), images)


@pytest.mark.parametrize("keys", [WIDE, {"degrees": 10, "scale": (0.8, 1.2), "shear": 10}])
def test_affine_draws_what_torchvision_draws(keys):
    n = 4_000
    drawn = RandomAffine(**keys).draw(n, seeded())
    theirs, image = v2.RandomAffine(**keys), torch.zeros(3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [theirs.make_params([image]) for _ in range(n)]
    columns = {"angle": 0, "scale": 3}
    for key, column in columns.items():
        assert ks_2samp(drawn[:, column], [p[key] for p in params]).pvalue > 0.001
    for axis in range(2):
        if drawn[:, 4 + axis].any():
            assert ks_2samp(drawn[:, 4 + axis], [p["shear"][axis] for p in params]).pvalue > 0.001
        else:
            assert not any(p["shear"][axis] for p in params)
        ours = (drawn[:, 1 + axis] * 32).round().long()
        moves = torch.tensor([p["translate"][axis] for p in params])
        if ours.any() or moves.any():
            counts = torch.stack([torch.bincount(shifts + 13, minlength=27) for shifts in (ours, moves)])
            assert chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue > 0.001


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"degrees": -1}, "degrees=-1"),
        ({"degrees": (1, 2, 3)}, "degrees="),
        ({"scale": (0, 1)}, "scale="),
        ({"scale": (1.2, 0.8)}, "scale="),
        ({"translate": (0.1, 1.1)}, "translate="),
        ({"shear": (5, 1)}, "shear="),
    ],
)
def test_affine_refuses_bad_values(keys, message):
    with pytest.raises(UserError, match=message):
        RandomAffine(**keys)
