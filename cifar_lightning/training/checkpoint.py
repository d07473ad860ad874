"""Reading a checkpoint file without running anything in it, or holding more than the file does."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_lightning.errors import UserError

# Of everything but the tensors' numbers: a large network's weights, optimizer and averages have some 10,000 entries.
MOST_ENTRIES = 500_000
LARGEST_PICKLE = 1 << 26


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors (on the CPU) and plain containers; see ImageClassifier.on_save_checkpoint for ours.

    Raises UserError for a file that is cut short, holds anything but plain data, unpacks to more than it has bytes,
    or comes from elsewhere.
    """
    try:
        _check_container(path)
        with warnings.catch_warnings(action="ignore"):  # of a doctored file's oddities, ahead of the one clear line
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _check_contents(checkpoint, Path(path).stat().st_size)
    except UserError as error:
        raise UserError(f"{path} can't be read as a checkpoint: {error}") from error
    except Exception as error:  # torch raises nearly anything on damaged bytes
        raise UserError(
            f"{path} can't be read as a checkpoint: it is cut short, damaged, or holds more than data"
        ) from error
    if not isinstance(checkpoint, dict) or "cifar_lightning" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of cifar_lightning: name a best.ckpt or last.ckpt of a run")
    return checkpoint


def _check_container(path: str | Path) -> None:
    """torch.save packs without compressing; what is compressed may be a thousand times its size."""
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError("it is compressed, as no checkpoint is")
    if sum(member.file_size for member in members) > Path(path).stat().st_size:
        raise UserError("it claims to hold more than it does")
    if any(member.file_size > LARGEST_PICKLE for member in members if member.filename.endswith("/data.pkl")):
        raise UserError("its description is larger than any network's")


def _check_contents(checkpoint: Any, size: int) -> None:
    """Every tensor has its numbers in the file, and there is an end to the entries (one list may stand in many)."""
    storages: dict[int, int] = {}
    waiting, entries = [checkpoint], 0
    while waiting:
        entries += 1
        if entries > MOST_ENTRIES:
            raise UserError("its entries have no end")
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise UserError("it holds a tensor without numbers")
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if value.numel() * value.element_size() > storage.nbytes():
                raise UserError("it holds a tensor that is larger than its numbers")
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    if sum(storages.values()) > size:
        raise UserError("it claims to hold more than it does")
