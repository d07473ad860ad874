"""People's own image files as RGB images of the size that a network was trained on."""

import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from cifar_lightning.errors import UserError, regular

# The formats that files may have, whatever they are called: some of Pillow's other readers start programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif")
MOST_PIXELS = 100_000_000
FITS = ("crop", "squash")


class UnreadableImage(UserError):
    """Its text says why; `path` says which file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def find_images(what: str) -> list[Path]:
    """The files that `what` names: a file, all images in and below a folder, or a glob of either, sorted by name.

    Raises UserError where there are none.
    """
    start = Path(what).expanduser()
    # In a glob, ** matches folders at any depth.
    named = [start] if start.exists() else sorted(map(Path, glob.glob(str(start), recursive=True)))
    found = dict.fromkeys(file for path in named for file in (_inside(path) if path.is_dir() else [path]))
    if not found:
        fault = f"no image in this folder ({' '.join(SUFFIXES)})" if start.is_dir() else "there is no such file"
        raise UserError(f"images={what}: {fault}")
    return list(found)


def _inside(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def read_image(path: str | Path, size: int, *, fit: str = "crop", background: str = "white") -> np.ndarray:
    """The file's image, uint8 [3, size, size]: of an animation the first frame, turned as its EXIF data say.

    Raises UnreadableImage for a file that is no image, damaged, or of more than MOST_PIXELS.
    """
    path = Path(path)
    try:
        regular(path)
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            return to_array(ImageOps.exif_transpose(image), size, fit=fit, background=background)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise UnreadableImage(path, _reason(path, error)) from error


def read_images(paths: Sequence[Path], size: int, **keys: str) -> tuple[np.ndarray, list[Path], list[UnreadableImage]]:
    """The images that can be read, uint8 [N, 3, size, size], their paths, and what is wrong with the others."""
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
        return "there is no such file"
    if isinstance(error, UserError):  # the text names the file
        return str(error).removeprefix(f"{path} ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS:,} pixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image" if path.stat().st_size else "the file is empty"
    return f"damaged ({(str(error).splitlines() or [type(error).__name__])[0]})"


def to_array(image: Image.Image, size: int, *, fit: str = "crop", background: str = "white") -> np.ndarray:
    """Any image as uint8 [3, size, size]: what is transparent shows the background.

    fit: "crop" takes the square in the middle, "squash" the whole. An image of that size keeps its pixels.
    """
    rgb = to_rgb(image, background)
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side) if fit == "crop" else None
    # Bilinear over the whole area that a new pixel covers, as torchvision does with antialias=True.
    small = rgb.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """The image in 8-bit RGB: 16-bit grey scaled, not clipped; transparency over the background."""
    if image.mode.startswith("I"):  # I;16, and I where Pillow widens 16 bits to 32
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")


def check_background(color: str) -> None:
    """Raise UserError for what Pillow does not know as a colour."""
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise UserError(f"background={color}: no colour; give a name such as white, or #rrggbb") from None
