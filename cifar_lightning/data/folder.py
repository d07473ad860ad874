"""Read a folder of the user's own images, `train/CLASS/*.png`, and keep them as one array beside them."""

import hashlib
import logging
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn

from cifar_lightning.console import progress
from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.data.images import images_in, read_images
from cifar_lightning.data.stratified_split import stratified_split
from cifar_lightning.errors import UserError
from cifar_lightning.natural_order import natural

log = logging.getLogger(__name__)
TEST_SHARE = 0.2  # of the images, where there is no test/
SEED = 42  # of that split, so that the test images are always the same
LONGEST_NAME = 100
MANY = 5_000  # images of which the progress is shown
SHOWN = 5  # broken files named in an error


def files(source: Source, official: None) -> list[Path]:
    root = source.root.expanduser()
    return [path for split in splits_in(root).values() for path in images_in(split)]


def read(source: Source, official: None) -> Arrays:
    """Images uint8 [N, 3, S, S]. Raises UserError for a folder of another layout and for files that can't be read."""
    root, size = source.root.expanduser(), source.image_size or 32
    splits = splits_in(root)
    names = class_names(splits["train"])
    of_split = {split: labelled_files(folder, names) for split, folder in splits.items()}
    paths = [path for found in of_split.values() for path, _ in found]
    images, broken = cached(root, paths, size, source.fit)
    if broken and source.unreadable == "refuse":
        some = "".join(f"\n       {path}: {reason}" for path, reason in list(broken.items())[:SHOWN])
        raise UserError(
            f"{len(broken):,} of {len(paths):,} images in {root} can't be read: mend or delete them, or go on without "
            f"them with data.unreadable=leave_out{some}"
        )
    if broken:
        log.warning("data.unreadable=leave_out: %d images of %s are left out", len(broken), root)
    parts, start = {}, 0
    for split, found in of_split.items():
        labels = np.array([label for path, label in found if str(path.relative_to(root)) not in broken], np.int64)
        parts[split] = LabeledImages(images[start : start + len(labels)], labels)
        start += len(labels)
    check_classes(parts["train"].labels, names, root, 1 if "test" in parts else 2)
    if "test" not in parts:
        kept, held_out = stratified_split(parts["train"].labels, TEST_SHARE, SEED)
        whole = parts["train"]
        parts["test"] = LabeledImages(whole.images[held_out], whole.labels[held_out])
        parts["train"] = LabeledImages(whole.images[kept], whole.labels[kept])
    validation = parts.get("val")
    return Arrays.of(
        train=LabeledImages.joined([parts["train"], validation]) if validation else parts["train"],
        test=parts["test"],
        class_names=names,
        validation=len(validation.labels) if validation else 0,
    )


def splits_in(root: Path) -> dict[str, Path]:
    """The folders of the splits; the classes may also be in the root itself. Raises UserError."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder; data=folder reads train/CLASS/*.png below it")
    found = {split: root / split for split in ("train", "val", "test") if (root / split).is_dir()}
    if found and "train" not in found:
        raise UserError(f"{root} has {' and '.join(f'{split}/' for split in found)}, but no train/")
    return found or {"train": root}


def class_names(folder: Path) -> list[str]:
    """The sub-folders with images, in natural order. Raises UserError for fewer than two, and for unusable names."""
    names = sorted((p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)
    for name in names:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise UserError(
                f"{folder} has the class {name[:LONGEST_NAME]!r}: rename it, in up to 100 printable letters"
            )
        if next(images_in(folder / name), None) is None:
            raise UserError(f"{folder / name} has no images: fill or delete the folder of this class")
    if len(names) < 2:
        loose = next((path.name for path in images_in(folder)), None)
        hint = f"; {loose} is in no class" if loose and not names else ""
        raise UserError(
            f"{folder} has {len(names)} folders of classes{hint}: put the images of each class into a folder of its own"
        )
    return names


def labelled_files(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """The images of each class with its number. Raises UserError for a class that the training split lacks."""
    classes = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if unknown := sorted(classes - set(names), key=natural):
        raise UserError(f"{folder} has the class {unknown[0]}, which train/ lacks")
    found = [(path, label) for label, name in enumerate(names) for path in images_in(folder / name)]
    if not found:
        raise UserError(f"{folder} has no images: fill or delete it")
    return found


def check_classes(labels: np.ndarray, names: Sequence[str], root: Path, least: int) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < least:
        few = names[int(counts.argmin())]
        raise UserError(
            f"class {few} in {root} has {counts.min()} readable training images: at least {least} are needed"
        )
    log.info("%s: %d classes of %d to %d training images", root, len(names), counts.min(), counts.max())


def cached(root: Path, paths: Sequence[Path], size: int, fit: str) -> tuple[np.ndarray, dict[str, str]]:
    """The readable images, and why the others (by path below the root) can't be read.

    From the cache if it is of the same files.
    """
    file = root / f".images-{size}-{fit}.npz"
    states = [(str(path.relative_to(root)), path.stat()) for path in paths]
    key = hashlib.sha256(repr([(name, s.st_size, s.st_mtime_ns) for name, s in states]).encode()).hexdigest()
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
            if str(saved["key"]) == key and checksum(images := saved["images"]) == str(saved["checksum"]):
                return images, dict(zip(saved["broken"].tolist(), saved["reasons"].tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or a damaged one
        pass
    shown = progress(f"reading {root}", len(paths), f"{len(paths):,} images", MofNCompleteColumn())
    with shown if len(paths) >= MANY else nullcontext(lambda done: None) as update:
        images, _, problems = read_images(paths, size, fit=fit, progress=update)
    broken = {str(problem.path.relative_to(root)): problem.reason for problem in problems}
    save(
        file, key=key, images=images, checksum=checksum(images),
        broken=np.array(list(broken), dtype=str), reasons=np.array(list(broken.values()), dtype=str),
    )  # fmt: skip
    return images, broken


def save(file: Path, **arrays: Any) -> None:
    """Write the cache, whole or not at all; where the folder can't be written to, there is none."""
    try:
        with NamedTemporaryFile(dir=file.parent, prefix=".images-", suffix=".tmp", delete=False) as partial:
            try:
                np.savez(partial, allow_pickle=False, **arrays)
                partial.close()
                Path(partial.name).chmod(0o644)  # as other files, unlike temporary ones
                Path(partial.name).replace(file)
            finally:
                Path(partial.name).unlink(missing_ok=True)
    except OSError as error:
        log.warning("the images are not cached in %s: %s", file.parent, error.strerror)


def checksum(images: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).hexdigest()
