"""Reading a checkpoint file without running anything in it."""

from pathlib import Path
from typing import Any

import torch

from cifar_lightning.errors import UserError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors (on the CPU) and plain containers; see ImageClassifier.on_save_checkpoint for ours.

    Raises UserError for a file that is cut short, holds anything but plain data, or comes from elsewhere.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on damaged bytes
        raise UserError(
            f"{path} can't be read as a checkpoint: it is cut short, damaged, or holds more than data"
        ) from error
    if not isinstance(checkpoint, dict) or "cifar_lightning" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of cifar_lightning: name a best.ckpt or last.ckpt of a run")
    return checkpoint
