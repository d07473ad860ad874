"""Read corrected labels of test images: from a file of some, or of all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.files import read_json


def corrected_labels(split: Split, name: str, path: Path, class_names: Sequence[str]) -> Tensor:
    """The labels int64 [N] of the test images, with those in the file in their place.

    path: a .npy file with an integer for each image, or JSON such as
    {"data": "cifar10", "split": "test", "labels": {"2405": "frog"}}, with class names or numbers.
    name: of the data set.
    Raises UserError for anything else.
    """
    try:
        content = np.load(path, allow_pickle=False) if path.suffix == ".npy" else read_json(path)
    except (OSError, ValueError, EOFError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        raise UserError(f"corrected={path}: {reason}") from error
    labels = split.labels.clone()
    if isinstance(content, np.ndarray):
        if content.shape != tuple(labels.shape) or content.dtype.kind not in "iu":
            kind = f"{content.dtype} {list(content.shape)}"
            raise UserError(f"corrected={path} has {kind}: give one integer for each of the {len(split):,} images")
        given = dict(enumerate(content.tolist()))
    else:
        given = _some(content, name, path)
    numbers = {label: number for number, label in enumerate(class_names)}
    for index, label in given.items():
        number = numbers.get(label, label)
        if type(number) is not int or not 0 <= number < len(class_names):
            raise UserError(f"corrected={path}: {str(label)[:40]} is none of the {len(class_names)} classes")
        if not 0 <= index < len(split):
            raise UserError(f"corrected={path}: {index} is not one of the {len(split):,} images, numbered from 0")
        labels[index] = number
    return torch.as_tensor(labels)


def _some(content: object, name: str, path: Path) -> dict[int, object]:
    form = '{"data": "' + name + '", "split": "test", "labels": {"0": "CLASS"}}'
    content = content if isinstance(content, dict) else {}
    labels = content.get("labels")
    if (content.get("data"), content.get("split")) != (name, "test") or not isinstance(labels, dict):
        raise UserError(f"corrected={path} has no labels of test images of {name}, such as {form}")
    bad = [key for key in labels if not (key.isascii() and key.isdigit())]
    if bad:
        raise UserError(f"corrected={path}: {bad[0][:40]} is not the number of an image")
    return {int(key): label for key, label in labels.items()}
