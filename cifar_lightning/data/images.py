"""Read image files of any size as RGB arrays of the size that a network takes."""

import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from cifar_lightning.errors import UserError, regular

# Accepted formats, whatever the file's name: some of Pillow's other readers start programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif")
MAX_PIXELS = 100_000_000
FITS = ("crop", "squash")


class UnreadableImage(UserError):
    """An image file that can't be read: `path`, and the `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def find_images(what: str) -> list[Path]:
    """The image files for a path: the file, all images in and below a folder, or those that match a glob, sorted.

    Raises UserError if there are none.
    """
    start = Path(what).expanduser()
    # ** in a glob matches folders at any depth.
    named = [start] if start.exists() else sorted(map(Path, glob.glob(str(start), recursive=True)))
    found = dict.fromkeys(file for path in named for file in (_inside(path) if path.is_dir() else [path]))
    if not found:
        fault = f"no image in this folder ({' '.join(SUFFIXES)})" if start.is_dir() else "no such file"
        raise UserError(f"images={what}: {fault}")
    return list(found)


def _inside(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def read_image(path: str | Path, size: int, *, fit: str = "crop", background: str = "white") -> np.ndarray:
    """The image as uint8 [3, size, size]: the first frame of an animation, rotated according to its EXIF data.

    Raises UnreadableImage for a file that is not an image, damaged, or larger than MAX_PIXELS.
    """
    path = Path(path)
    try:
        regular(path)
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return to_array(ImageOps.exif_transpose(image), size, fit=fit, background=background)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise UnreadableImage(path, _reason(path, error)) from error


def read_images(paths: Sequence[Path], size: int, **keys: str) -> tuple[np.ndarray, list[Path], list[UnreadableImage]]:
    """The readable images, uint8 [N, 3, size, size], their paths, and the errors of the others."""
    images, read, unreadable = [], [], []
    for path in paths:
        try:
            images.append(read_image(path, size, **keys))
            read.append(path)
        except UnreadableImage as problem:
            unreadable.append(problem)
    return np.stack(images) if images else np.empty((0, 3, size, size), np.uint8), read, unreadable


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if isinstance(error, UserError):  # the text names the file
        return str(error).removeprefix(f"{path} ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image" if path.stat().st_size else "the file is empty"
    return f"damaged ({(str(error).splitlines() or [type(error).__name__])[0]})"


def to_array(image: Image.Image, size: int, *, fit: str = "crop", background: str = "white") -> np.ndarray:
    """Any image as uint8 [3, size, size], transparency over the background.

    fit: "crop" takes the central square, "squash" the whole image. An image of that size is not changed.
    """
    rgb = to_rgb(image, background)
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side) if fit == "crop" else None
    # Bilinear with antialiasing, as torchvision with antialias=True.
    small = rgb.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """The image in 8-bit RGB: 16-bit grey is scaled, not clipped; transparency goes over the background."""
    if image.mode.startswith("I"):  # I;16, and I where Pillow widens 16 bits to 32
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")


def check_background(color: str) -> None:
    """Raise UserError for a colour that Pillow does not know."""
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise UserError(f"background={color}: not a colour; give a name such as white, or #rrggbb") from None
