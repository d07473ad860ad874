"""Read a checkpoint file without running anything in it, and without using more memory or time than its size warrants.

`torch.load(weights_only=True)` runs no code, but it allocates whatever the file's pickle asks for. So the pickle's
instructions are looked at first.
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

# Of everything but the tensors' numbers: a large network's weights, optimizer and averages have some 10,000 entries.
MOST_ENTRIES = 500_000
LARGEST_PICKLE = 1 << 26
# What a checkpoint's pickle may name: containers and tensors. bytearray, for one, would allocate any number of bytes.
ADMITTED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) (set|complex)"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|bool|(b?float|u?int|complex)\d+(_\w+)?)"
)
# Instructions, beside what the file's size allows. Few of a real file's bytes are instructions: they make at most a
# few hundred bytes each, and tuples in tuples, thousands deep, overflow the interpreter's stack.
FREE_INSTRUCTIONS, BYTES_AN_INSTRUCTION = 50_000, 32
FREE_TUPLES, TUPLES_A_MEMBER = 10_000, 8


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors (on the CPU) and plain containers; see ImageClassifier.on_save_checkpoint for ours.

    Raises UserError for a file that is cut short, holds anything but plain data, unpacks to more than it has bytes,
    or comes from elsewhere.
    """
    try:
        _check_container(path)
        # PyTorch itself opens no path that is not UTF-8; it warns of a doctored file's oddities, ahead of the one line.
        with open(path, "rb") as file, warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
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
        raise UserError("it is compressed, as no checkpoint is")
    if sum(member.file_size for member in members) > size or len({m.filename for m in members}) < len(members):
        raise UserError("it claims to hold more than it does")
    if any(member.file_size > LARGEST_PICKLE for member in members if member.filename.endswith("data.pkl")):
        raise UserError("its description is larger than any network's")


def _check_pickle(content: bytes, most_instructions: int, most_tuples: int) -> None:
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        tuples += instruction.name.startswith("TUPLE")
        if number > most_instructions or tuples > most_tuples:
            raise UserError("it has more entries than its size warrants")
        name = str(argument)[:100]
        if instruction.name == "GLOBAL" and not ADMITTED_GLOBALS.fullmatch(name):
            raise UserError(f"it names {name.replace(' ', '.')}, and a checkpoint holds no more than data")


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
