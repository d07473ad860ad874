"""Batches that processes or accumulation don't divide evenly: the mean over images, and the rows of all processes."""

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


def gathered_rows(trainer: L.Trainer, rows: Tensor) -> Tensor:
    """The rows of a global batch in order, of which each process has a slice, perhaps of another length."""
    if trainer.world_size == 1:
        return rows
    counts = trainer.strategy.all_gather(torch.tensor(len(rows), device=rows.device)).tolist()
    if max(counts) == 0:
        return rows
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    slices = trainer.strategy.all_gather(padded)
    return torch.cat([some[:count] for some, count in zip(slices, counts, strict=True)])
