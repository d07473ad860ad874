"""Read image files of any size as RGB arrays of the size that a network takes."""

import glob
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from cifar_lightning.errors import UserError, regular

# Accepted formats, whatever the file's name: some of Pillow's other readers start programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif")
MAX_PIXELS = 100_000_000
CHUNK = 64  # images that a thread reads in one go
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
    found = dict.fromkeys(file for path in named for file in (images_in(path) if path.is_dir() else [path]))
    if not found:
        fault = f"no image in this folder ({' '.join(SUFFIXES)})" if start.is_dir() else "no such file"
        raise UserError(f"images={what}: {fault}")
    return list(found)


def images_in(folder: Path) -> Iterator[Path]:
    """The files in and below a folder that are images by their names, sorted; hidden ones are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(parent, name)


def read_image(path: str | Path, size: int, *, fit: str = "crop", background: str = "white") -> np.ndarray:
    """The image as uint8 [3, size, size]: the first frame of an animation, rotated according to its EXIF data.

    Raises UnreadableImage for a file that is not an image, damaged, or larger than MAX_PIXELS.
    """
    with warnings.catch_warnings(action="ignore"):
        return _read(Path(path), size, fit, background)


def _read(path: Path, size: int, fit: str, background: str) -> np.ndarray:
    """`read_image` for several threads, which must not each switch warnings off and on."""
    try:
        regular(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            ImageOps.exif_transpose(image, in_place=True)
            return to_array(image, size, fit=fit, background=background)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise UnreadableImage(path, _reason(path, error)) from error


def read_images(
    paths: Sequence[Path],
    size: int,
    *,
    fit: str = "crop",
    background: str = "white",
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, list[Path], list[UnreadableImage]]:
    """The readable images, uint8 [N, 3, size, size], their paths, and the errors of the others.

    progress: called with the number of files that were read, from time to time.
    """
    images = np.empty((len(paths), 3, size, size), np.uint8)
    unreadable: dict[int, UnreadableImage] = {}
    done = itertools.count(1)

    def read(first: int) -> None:
        for i, path in enumerate(paths[first : first + CHUNK], first):
            try:
                images[i] = _read(path, size, fit, background)
            except UnreadableImage as problem:
                unreadable[i] = problem
        progress(min(next(done) * CHUNK, len(paths)))

    # Threads, as decoding and resizing release the interpreter's lock.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, range(0, len(paths), CHUNK)))
    if unreadable:
        images = np.delete(images, list(unreadable), axis=0)
    kept = [path for i, path in enumerate(paths) if i not in unreadable]
    return images, kept, [unreadable[i] for i in sorted(unreadable)]


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
