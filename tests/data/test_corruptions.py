"""Corruptions are what their definitions say: by SciPy, Pillow, statistics of the noise, and plain formulas."""

import colorsys
import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from cifar_lightning.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from cifar_lightning.data.warps import gaussian_blurred, smeared, zoomed


@pytest.fixture(scope="module")
def images():
    """Smooth coloured images with edges, uint8 [24, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(24, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, 32, mode="bicubic", align_corners=False)
    smooth[:, :, 10:20, 12:24] = torch.rand(24, 3, 1, 1, generator=generator)
    return (smooth.clamp(0, 1) * 255).round().to(torch.uint8)


def away(changed, images):
    return (changed.float() - images.float()).abs().mean().item()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_seed_gives_the_same_images_and_every_severity_changes_them(kind, images):
    changed = [corrupted(images, kind, severity) for severity in SEVERITIES]
    assert all(some.shape == images.shape and some.dtype == torch.uint8 for some in changed)
    assert torch.equal(changed[2], corrupted(images, kind, 3))
    assert all(away(some, images) > 0.2 for some in changed)
    if kind not in ("elastic_transform", "glass_blur"):  # whose severities trade one thing for another
        assert away(changed[0], images) < away(changed[4], images)
    grey = corrupted(images[:2, :1], kind, 3)
    assert grey.shape == (2, 1, 32, 32)


def test_noise_has_the_deviation_and_the_share_of_its_setting():
    flat = torch.full((200, 3, 32, 32), 128, dtype=torch.uint8)
    for severity, (gauss, photons, share) in enumerate(
        zip((0.04, 0.06, 0.08, 0.09, 0.10), (500, 250, 100, 75, 50), (0.01, 0.02, 0.03, 0.05, 0.07), strict=True), 1
    ):
        noisy = corrupted(flat, "gaussian_noise", severity).double()
        assert noisy.std().item() == pytest.approx(255 * gauss, rel=0.02)
        shot = corrupted(flat, "shot_noise", severity).double()
        assert shot.std().item() == pytest.approx(255 * np.sqrt(128 / 255 / photons), rel=0.03)
        impulses = corrupted(flat, "impulse_noise", severity)
        assert (impulses != 128).double().mean().item() == pytest.approx(share, rel=0.05)
        assert (impulses == 255).sum().item() == pytest.approx((impulses == 0).sum().item(), rel=0.1)


def test_pixelate_and_jpeg_are_pillows(images):
    for kind, severity, done in (
        ("pixelate", 5, lambda image: image.resize((20, 20), Image.BOX).resize((32, 32), Image.BOX)),
        ("pixelate", 2, lambda image: image.resize((28, 28), Image.BOX).resize((32, 32), Image.BOX)),
        ("jpeg_compression", 3, lambda image: through_jpeg(image, 58)),
    ):
        changed = corrupted(images, kind, severity)
        for before, after in zip(images, changed, strict=True):
            expected = np.asarray(done(Image.fromarray(before.permute(1, 2, 0).numpy()))).astype(int)
            assert np.abs(expected - after.permute(1, 2, 0).numpy()).max() <= 1


def through_jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_brightness_and_contrast_are_those_of_their_formulas(images):
    image = images[0].permute(1, 2, 0).numpy() / 255
    brighter = corrupted(images[:1], "brightness", 5)[0].permute(1, 2, 0).numpy()
    for row, column in ((0, 0), (15, 15), (31, 7)):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[row, column])
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))) * 255
        assert np.abs(expected - brighter[row, column]).max() <= 1
    means = image.mean((0, 1))
    flatter = corrupted(images[:1], "contrast", 5)[0].permute(1, 2, 0).numpy()
    assert np.abs((means + 0.15 * (image - means)) * 255 - flatter).max() <= 1


@pytest.mark.parametrize("sigma", [0.25, 0.4, 1.3])
def test_blurring_is_scipys(images, sigma):
    x = images[:3].float()
    assert gaussian_blurred(x, sigma).numpy() == pytest.approx(
        scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma)), abs=1e-2
    )


def test_defocus_is_the_convolution_with_a_soft_disk():
    dot = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    dot[0, 0, 16, 16] = 255
    blurred = corrupted(dot, "defocus_blur", 4)[0, 0].double() / 255  # radius 1: five pixels
    assert blurred[16, 16].item() == pytest.approx(0.2, abs=0.005)
    assert blurred[15, 16].item() == pytest.approx(0.2, abs=0.005)
    assert blurred.sum().item() == pytest.approx(1, abs=0.03)


def test_motion_smears_a_dot_along_its_angle_only():
    dot = torch.zeros(2, 1, 32, 32)
    dot[:, 0, 16, 16] = 1
    across, down = smeared(dot, 8, 2, torch.tensor([0.0, 90.0]))[:, 0]
    weights = np.exp(-(np.arange(17) ** 2) / 8)
    weights /= weights.sum()
    assert across[16, 16 - np.arange(6)].numpy() == pytest.approx(weights[:6], abs=1e-4)
    assert down[16 - np.arange(6), 16].numpy() == pytest.approx(weights[:6], abs=1e-4)
    assert across.sum().item() == pytest.approx(1, abs=1e-3)
    assert (across != 0).any(1).sum() == 1


def test_zoom_enlarges_the_centre():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    enlarged = zoomed(ramp, 2.0)[0, 0, 0]
    assert enlarged.numpy() == pytest.approx(15.5 + (np.arange(32) - 15.5) / 2, abs=1e-3)


def test_glass_moves_pixels_by_one_at_most():
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(4, 3, 32, 32).contiguous()
    moved = corrupted(ramp, "glass_blur", 1).long() // 8 - ramp.long() // 8
    assert set(moved[..., :, 2:].unique().tolist()) == {-1, 0}
    assert 0.3 < (moved[..., 3:, 3:] != 0).double().mean().item() < 0.7


def test_fog_lightens_no_pixel_beyond_the_brightest_and_differs_between_images(images):
    same = images[:1].expand(8, -1, -1, -1)
    foggy = corrupted(same, "fog", 5)
    assert foggy.amax() <= images[0].amax()
    assert not torch.equal(foggy[0], foggy[1])


def test_elastic_keeps_the_colours_it_bends(images):
    flat = torch.full((4, 3, 32, 32), 77, dtype=torch.uint8)
    for severity in SEVERITIES:
        assert (corrupted(flat, "elastic_transform", severity) - 76 <= 1).all()
