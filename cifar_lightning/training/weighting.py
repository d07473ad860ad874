"""Weights that make the gradient of uneven batches the mean over their images, where Lightning averages differently."""

import math

import lightning as L
import torch
from torch import Tensor


def process_weight(trainer: L.Trainer, images: int, device: torch.device) -> Tensor:
    """Turns the mean over processes into the mean over images, if the last batch is not divided evenly."""
    mean = trainer.strategy.reduce(torch.tensor(float(images), device=device), reduce_op="mean")
    return images / mean


def accumulation_weight(trainer: L.Trainer, batch_idx: int) -> float:
    """Turns the mean over `accumulate_grad_batches` into the mean over an epoch's last, smaller group."""
    full, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if full == 1 or math.isinf(batches):
        return 1
    left = int(batches) % full
    return full / left if batch_idx >= batches - left else 1
