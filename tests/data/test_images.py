"""People's images, whatever they are, become what the networks were trained on."""

import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torchvision.transforms.v2.functional import resize

from cifar_lightning.data import images as library
from cifar_lightning.data.images import FORMATS, UnreadableImage, check_background, find_images
from cifar_lightning.errors import UserError

read_image, read_images = (partial(read, size=32) for read in (library.read_image, library.read_images))
RED, BLUE = (255, 0, 0), (0, 0, 255)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, path, **keys):
    image.save(path, **keys)
    return path


def halves(width: int, height: int, left=RED, right=BLUE, mode="RGB") -> Image.Image:
    image = Image.new(mode, (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_an_image_of_the_networks_size_keeps_its_pixels(tmp_path, suffix):
    pixels = noise(32, 32, 3)
    path = saved(Image.fromarray(pixels), tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    out = read_image(path)
    assert (out.shape, out.dtype) == ((3, 32, 32), np.uint8)
    assert_array_equal(out, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("side", [20, 33, 64, 257])
def test_images_are_resized_as_torchvision_does(tmp_path, side):
    pixels = noise(side, side, 3)
    expected = resize(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), [32, 32], antialias=True)
    out = read_image(saved(Image.fromarray(pixels), tmp_path / "a.png"))
    assert_allclose(out.astype(int), expected.numpy().astype(int), atol=1)


def test_the_middle_is_cut_out_or_the_whole_is_squashed(tmp_path):
    wide = Image.new("RGB", (96, 32), RED)
    wide.paste(BLUE, (32, 0, 64, 32))
    path = saved(wide, tmp_path / "wide.png")
    assert_array_equal(read_image(path), np.array(BLUE).reshape(3, 1, 1).repeat(32, 1).repeat(32, 2))
    squashed = read_image(path, fit="squash")
    assert_array_equal(squashed[:, :, 0], np.array(RED).reshape(3, 1).repeat(32, 1))
    assert_array_equal(squashed[:, :, 16], np.array(BLUE).reshape(3, 1).repeat(32, 1))
    assert_array_equal(squashed[:, :, 31], np.array(RED).reshape(3, 1).repeat(32, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2), (31, 33), (3000, 10)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_any_size_will_do(tmp_path, size, fit):
    out = read_image(saved(Image.new("RGB", size, (10, 20, 30)), tmp_path / "a.png"), fit=fit)
    assert_array_equal(out.transpose(1, 2, 0).reshape(-1, 3), np.tile([10, 20, 30], (1024, 1)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(tmp_path, orientation):
    upright = Image.fromarray(noise(32, 32, 3))
    # How a camera would have stored it, by the meaning of the tag (EXIF 2.32, table 6).
    stored = {
        1: lambda im: im,
        2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda im: im.rotate(180),
        4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda im: im.transpose(Image.Transpose.TRANSPOSE),
        6: lambda im: im.rotate(90),
        7: lambda im: im.transpose(Image.Transpose.TRANSVERSE),
        8: lambda im: im.rotate(-90),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(stored, tmp_path / "a.png", exif=exif)
    assert_array_equal(read_image(path), np.asarray(upright).transpose(2, 0, 1))


def test_grey_images_of_8_and_16_bits_are_the_same_grey(tmp_path):
    grey = noise(32, 32)
    expected = np.repeat(grey[None], 3, 0)
    assert_array_equal(read_image(saved(Image.fromarray(grey), tmp_path / "8.png")), expected)
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    assert_array_equal(read_image(saved(sixteen, tmp_path / "16.png")), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: halves(64, 64, (*RED, 255), (*BLUE, 0), "RGBA"),
        lambda: halves(64, 64, (*RED, 255), (*BLUE, 0), "RGBA").quantize(8),
    ],
    ids=["RGBA", "palette"],
)
@pytest.mark.parametrize(("background", "shown"), [("white", 255), ("#000000", 0)])
def test_the_background_shows_through_what_is_transparent(tmp_path, make, background, shown):
    out = read_image(saved(make(), tmp_path / "a.png"), background=background)
    assert_array_equal(out[:, :, 2], np.array(RED).reshape(3, 1).repeat(32, 1))
    assert_array_equal(out[:, :, 29], shown)


def test_half_transparent_pixels_are_mixed(tmp_path):
    out = read_image(saved(Image.new("RGBA", (32, 32), (0, 0, 0, 51)), tmp_path / "a.png"))
    assert_array_equal(out, 204)  # a fifth of black


def test_a_colour_that_png_declares_transparent_is(tmp_path):
    path = saved(halves(32, 32), tmp_path / "a.png", transparency=BLUE)
    assert_array_equal(read_image(path)[:, :, 20], 255)
    assert_array_equal(read_image(path)[0, :, 5], 255)
    assert_array_equal(read_image(path)[1:, :, 5], 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_of_a_uniform_grey_is_that_grey(tmp_path, mode):
    image = Image.new("RGB", (40, 50), (255, 255, 255)).convert(mode)
    path = saved(image, tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    assert_array_equal(read_image(path), 255)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (32, 32), color) for color in ((0, 0, 0), (255, 255, 255))]
    path = saved(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert_array_equal(read_image(path), 0)


@pytest.mark.parametrize("suffix", [".txt", ".png", ""])
def test_what_counts_is_the_content_not_the_name(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (32, 32), RED).save(path, format="JPEG")
    assert read_image(path)[0].min() > 250


def broken(path, kind):
    image = Image.fromarray(noise(64, 64, 3))
    if kind == "cut short":
        content = saved(image, path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "folder":
        path.mkdir()
    elif kind == "PostScript":  # Pillow would start Ghostscript on it
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    elif kind == "bomb":
        saved(Image.new("1", (20_000, 20_000)), path)
    return path


@pytest.mark.parametrize("kind", ["cut short", "empty", "text", "folder", "PostScript", "bomb", "absent"])
def test_what_can_not_be_read_is_named_with_the_reason(tmp_path, kind):
    path = broken(tmp_path / "a.png", kind)
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    reasons = {"empty": "empty", "folder": "directory", "bomb": "pixels", "absent": "no such file"}
    reasons |= dict.fromkeys(("text", "PostScript"), "not a PNG, JPEG, WEBP, BMP or GIF image") | {
        "cut short": "damaged"
    }
    assert str(caught.value).startswith(f"{path}: ")
    assert reasons[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero")):
        with pytest.raises(UnreadableImage, match="is a pipe, socket or device"):
            read_image(path)


def test_dimensions_that_the_file_does_not_have_cost_no_memory(tmp_path):
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.bmp")
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<ii", 9_999, 9_999)  # width and height, just below the limit
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_image(path)
    content[18:26] = struct.pack("<ii", 2**30, 2**30)
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="more than 100,000,000 pixels"):
        read_image(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.integers(-400, 400), st.binary(max_size=4)), max_size=3),
    keep=st.one_of(st.just(1000), st.integers(0, 1000)),
)
def test_any_damage_is_read_or_named_in_one_line(tmp_path, format, edits, keep):
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(20, 24, 3)).save(path, format=format)
    content = path.read_bytes()
    for at, new in edits:
        at %= len(content)
        content = content[:at] + new + content[at + len(new) :]
    path.write_bytes(content[: keep * len(content) // 1000])
    try:
        image = read_image(path)
    except UnreadableImage as problem:
        image, text = None, str(problem)
        if not text.startswith(f"{path}: ") or "\n" in text:
            raise
    assert image is None or (image.shape, image.dtype) == ((3, 32, 32), np.uint8)


def test_the_readable_ones_are_read_all_the_same(tmp_path):
    good = saved(Image.new("RGB", (32, 32), RED), tmp_path / "good.png")
    images, read, problems = read_images([broken(tmp_path / "a.png", "text"), good])
    assert images.shape == (1, 3, 32, 32)
    assert read == [good]
    assert [problem.path.name for problem in problems] == ["a.png"]


@pytest.fixture
def photos(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "sub/deeper/d.bmp", "notes.txt", ".hidden.png", ".git/e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("", ["a.jpg", "b.PNG", "sub/c.webp", "sub/deeper/d.bmp"]),
        ("a.jpg", ["a.jpg"]),
        ("notes.txt", ["notes.txt"]),
        ("*.jpg", ["a.jpg"]),
        ("[ab].*", ["a.jpg", "b.PNG"]),
        ("**/*.bmp", ["sub/deeper/d.bmp"]),
        ("su*", ["sub/c.webp", "sub/deeper/d.bmp"]),
        ("s*/c.webp", ["sub/c.webp"]),
    ],
)
def test_a_file_a_folder_or_a_glob_names_images(photos, what, names):
    assert [str(path.relative_to(photos)) for path in find_images(str(photos / what))] == names


def test_a_file_with_brackets_in_its_name_is_no_glob(photos):
    (photos / "a[1].png").touch()
    assert find_images(str(photos / "a[1].png")) == [photos / "a[1].png"]


@pytest.mark.parametrize("what", ["nowhere", "*.tiff", "empty"])
def test_no_image_at_all_is_an_error(photos, what):
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="no "):
        find_images(str(photos / what))


@pytest.mark.parametrize("color", ["whit", "#12", ""])
def test_a_background_that_is_no_colour_is_refused(color):
    with pytest.raises(UserError, match="background="):
        check_background(color)
