"""Resolve `trainer.accelerator` and `trainer.precision=auto`: bfloat16 where the hardware supports it natively."""

import logging
from importlib.util import find_spec
from typing import Literal

import torch

from cifar_lightning.errors import UserError

# The values of trainer.precision and trainer.accelerator.
Precision = Literal[
    "auto", "32-true", "32", 32, "bf16-mixed", "bf16-true", "bf16", "16-mixed", "16-true", "16", 16, "64-true", "64", 64
]  # fmt: skip
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]

log = logging.getLogger(__name__)


def resolve_accelerator(accelerator: str) -> str:
    """`cpu`, `cuda`, `mps` or `tpu` for `trainer.accelerator`. Raises UserError if there is no such device."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda") and not cuda and not (mps and accelerator == "gpu"):
        raise UserError(f"trainer.accelerator={accelerator}: PyTorch finds no GPU; use trainer.accelerator=cpu or auto")
    if accelerator == "mps" and not mps:
        raise UserError("trainer.accelerator=mps: this machine has no Apple GPU; use trainer.accelerator=cpu or auto")
    if accelerator == "tpu" and find_spec("torch_xla") is None:
        raise UserError("trainer.accelerator=tpu needs the package torch_xla; use trainer.accelerator=cpu or auto")
    if accelerator in ("auto", "gpu", "cuda"):
        return "cuda" if cuda else "mps" if mps else "cpu"
    return accelerator


def resolve_precision(precision: str | int, accelerator: str) -> str | int:
    """`bf16-mixed` or `32-true` for `auto`; anything else is returned unchanged."""
    device = resolve_accelerator(accelerator)
    if precision != "auto":
        return precision
    chosen = "bf16-mixed" if computes_bfloat16(device) else "32-true"
    log.info("precision: %s (trainer.precision=auto on %s)", chosen, device)
    return chosen


def computes_bfloat16(device: str) -> bool:
    """Whether the device supports bfloat16 natively: CUDA capability 8 and later, CPUs with AMX or AVX512-BF16."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False
