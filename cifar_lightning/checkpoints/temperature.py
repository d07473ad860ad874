"""Keep a temperature in a checkpoint, so that whoever loads it gets calibrated probabilities."""

from pathlib import Path

import torch

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.reporting.files import atomic_path


def write_temperature(path: Path, temperature: float) -> None:
    """Write the temperature into the file beside what is there; `load_classifier` reads it. Weights are unchanged."""
    checkpoint = read_checkpoint(path)
    checkpoint["cifar_lightning"]["temperature"] = temperature
    with atomic_path(path) as temporary:
        torch.save(checkpoint, temporary)
