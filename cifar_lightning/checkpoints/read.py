"""Read a checkpoint file without running code from it, in memory and time proportional to its size.

`torch.load(weights_only=True)` runs no code, but allocates whatever the file's pickle asks for. Therefore the pickle's
instructions are checked first.
"""

import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_lightning.errors import UserError, regular

# Without the tensors' contents: a large network's weights, optimizer and averages have about 10,000 entries.
MAX_ENTRIES = 500_000
LARGEST_PICKLE = 1 << 26
# Containers and tensors. Others, such as bytearray, could allocate any number of bytes.
ADMITTED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) (set|complex)"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|bool|(b?float|u?int|complex)\d+(_\w+)?)"
)
# Instructions allowed beyond a share of the file's size. Each allocates at most a few hundred bytes, and thousands of
# nested tuples overflow the interpreter's stack.
FREE_INSTRUCTIONS, BYTES_AN_INSTRUCTION = 50_000, 32
FREE_TUPLES, TUPLES_A_MEMBER = 10_000, 8


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors (on the CPU) and plain containers; see ImageClassifier.on_save_checkpoint.

    Raises UserError for a file that is truncated, contains anything but plain data, unpacks to more than its size, or
    is not a checkpoint of this package.
    """
    try:
        _check_container(path)
        # An open file, as PyTorch itself opens no path that is not UTF-8; its warnings would precede the error.
        with open(path, "rb") as file, warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        _check_contents(checkpoint, Path(path).stat().st_size)
    except UserError as error:
        raise UserError(f"{path} can't be read as a checkpoint: {error}") from error
    except Exception as error:  # torch raises nearly anything on damaged bytes
        raise UserError(
            f"{path} can't be read as a checkpoint: it is truncated, damaged, or contains more than data"
        ) from error
    if not isinstance(checkpoint, dict) or "cifar_lightning" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of cifar_lightning: give a best.ckpt or last.ckpt of a run")
    return checkpoint


def _check_container(path: str | Path) -> None:
    """torch.save does not compress; compressed data may unpack to a thousand times its size."""
    size = regular(Path(path)).stat().st_size
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        _check_members(members, size)
        for member in members:
            if member.filename.endswith("data.pkl"):
                _check_pickle(file.read(member), FREE_INSTRUCTIONS + size // BYTES_AN_INSTRUCTION,
                              FREE_TUPLES + TUPLES_A_MEMBER * len(members))  # fmt: skip


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError("it is compressed, unlike a checkpoint")
    if sum(member.file_size for member in members) > size or len({m.filename for m in members}) < len(members):
        raise UserError("it claims to contain more than it does")
    if any(member.file_size > LARGEST_PICKLE for member in members if member.filename.endswith("data.pkl")):
        raise UserError("its pickle is too large")


def _check_pickle(content: bytes, most_instructions: int, most_tuples: int) -> None:
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        tuples += instruction.name.startswith("TUPLE")
        if number > most_instructions or tuples > most_tuples:
            raise UserError("it has too many entries for its size")
        name = str(argument)[:100]
        if instruction.name == "GLOBAL" and not ADMITTED_GLOBALS.fullmatch(name):
            raise UserError(f"it names {name.replace(' ', '.')}, but a checkpoint contains only data")


def _check_contents(checkpoint: Any, size: int) -> None:
    """Raise UserError for tensors without data in the file, or endless entries (one list may occur in many)."""
    storages: dict[int, int] = {}
    waiting, entries = [checkpoint], 0
    while waiting:
        entries += 1
        if entries > MAX_ENTRIES:
            raise UserError("it has too many entries")
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise UserError("it contains a tensor without data")
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if value.numel() * value.element_size() > storage.nbytes():
                raise UserError("it contains a tensor that is larger than its data")
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    if sum(storages.values()) > size:
        raise UserError("it claims to contain more than it does")
