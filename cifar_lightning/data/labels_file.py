"""Read other labels for the training images, such as those of human annotators, without running code."""

import csv
import zipfile
from pathlib import Path

import numpy as np

from cifar_lightning.data.pickles import LARGEST_FILE, arrays_in
from cifar_lightning.errors import UserError, first_line, nearest, regular

MARGIN = 0.1  # labels of images in another order agree with 1 in K, up to chance


def read_labels(path: Path, key: str | None, official: np.ndarray, classes: int) -> np.ndarray:
    """Labels int64 [N], one for each image of the official training set, in its order.

    path: a .npy file, a .csv file of one or more columns with or without names, or a .pt file with a dictionary of
    arrays, such as CIFAR-10N's (Wei et al. 2022). key: which of several arrays or columns.
    Raises UserError for labels of another number, range or order.
    """
    found = columns(path)
    if key is None and len(found) != 1:
        raise UserError(f"data.labels_file={path} has several arrays: choose one, data.labels_key={'|'.join(found)}")
    if key is not None and key not in found:
        raise UserError(f"data.labels_key={key}: {path} has no such array{nearest(key, list(found))}")
    labels = found[key if key is not None else next(iter(found))]
    if labels.shape != official.shape or labels.dtype.kind not in "iu":
        raise UserError(
            f"data.labels_file={path} has {labels.dtype} {list(labels.shape)}: give one integer for each of the "
            f"{len(official):,} training images"
        )
    if len(wrong := labels[(labels < 0) | (labels >= classes)]):
        raise UserError(f"data.labels_file={path} has the label {wrong[0]}: there are {classes} classes, from 0")
    reference = found.get("clean_label", labels)  # CIFAR-10N's copy of the official labels
    agreement = float((reference == official).mean()) if reference.shape == official.shape else 0.0
    if agreement < (1.0 if reference is not labels else 1 / classes + MARGIN):
        raise UserError(
            f"data.labels_file={path} is of other images, or in another order: only {100 * agreement:.1f} % of its "
            f"{'clean_label' if reference is not labels else 'labels'} agree with the data's own"
        )
    return labels.astype(np.int64)


def columns(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file by name. Raises UserError for a file of another kind."""
    try:
        if regular(path).stat().st_size > LARGEST_FILE:
            raise UserError(f"data.labels_file={path} is too large to be labels")
        if path.suffix == ".npy":
            return {"labels": np.load(path, allow_pickle=False)}
        if path.suffix == ".csv":
            return csv_columns(path)
        if path.suffix == ".pt":
            return arrays_in(pickle_in(path), path)
    except FileNotFoundError:
        raise UserError(f"data.labels_file={path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, csv.Error) as error:
        raise UserError(f"data.labels_file={path} can't be read: {first_line(error)}") from error
    raise UserError(f"data.labels_file={path}: the name must end in .pt, .npy or .csv")


def csv_columns(path: Path) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    named = bool(rows) and not all(cell.strip().lstrip("-").isdigit() for cell in rows[0])
    names = rows.pop(0) if named else [f"column {i + 1}" for i in range(len(rows[0]) if rows else 0)]
    return {
        name.strip(): np.array([int(value) for value in values], np.int64)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }


def pickle_in(path: Path) -> bytes:
    """The pickle of a file that torch.save wrote; tensors are in other members, which aren't read."""
    with zipfile.ZipFile(path) as file:
        member = next((m for m in file.infolist() if m.filename.endswith("data.pkl")), None)
        if member is None or member.file_size > LARGEST_FILE:
            raise UserError(f"data.labels_file={path} is not a file of torch.save")
        return file.read(member)
