"""The state that a checkpoint needs beside Lightning's, so that a resumed run equals an uninterrupted one."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cifar_lightning.errors import UserError
from cifar_lightning.training.finite import not_finite
from cifar_lightning.training.lightning_internals import leave_finished_epoch, repeat_validation

if TYPE_CHECKING:
    from cifar_lightning.training.classifier import ImageClassifier


def state(module: "ImageClassifier") -> dict[str, Any]:
    """The state of a module in training; sums and random states have a row for each process."""
    trainer, device = module.trainer, module.device
    rows = {"sums": module.train_sums.state(), "rng": torch.get_rng_state()}
    if device.type != "cpu":
        rows["device_rng"] = torch.get_device_module(device).get_rng_state()
    if trainer.world_size == 1 or trainer.interrupted:  # the other processes may have ended
        rows = {key: row.cpu()[None] for key, row in rows.items()}
    else:
        rows = {key: trainer.strategy.all_gather(row.to(device)).cpu() for key, row in rows.items()}
    means = {key: value.item() for key, value in module.val_means.items()}
    return {
        "epoch": trainer.current_epoch,
        "val_means": means,
        "val_step": module.val_step,
        "events": module.events,
        "operations": module.operations.state(),
        **rows,
    }


def restore(module: "ImageClassifier", saved: dict[str, Any]) -> None:
    """Restore what `state` returned."""
    leave_finished_epoch(module.trainer)
    row = min(module.global_rank, len(saved["rng"]) - 1)
    if saved["epoch"] == module.trainer.current_epoch:  # else the checkpoint was written after the epoch's last step
        module.train_sums.load(saved["sums"][row])
    module.val_means = {key: module.train_sums.loss.new_tensor(mean) for key, mean in saved["val_means"].items()}
    module.val_step = saved.get("val_step")
    module.events = list(saved.get("events", []))
    module.operations.load(saved.get("operations", []))
    torch.set_rng_state(saved["rng"][row].clone())  # a clone, as torch reads a storage from its start
    if "device_rng" in saved and module.device.type != "cpu":
        torch.get_device_module(module.device).set_rng_state(saved["device_rng"][row].clone())


def complete(module: "ImageClassifier", checkpoint: dict[str, Any]) -> None:
    """Complete a checkpoint before it is written. Raises UserError if its weights are NaN or infinite."""
    weights: list[Tensor] = [tensor for tensor in checkpoint["state_dict"].values() if tensor.is_floating_point()]
    if not all(tensor.isfinite().all() for tensor in weights):
        raise UserError(not_finite(module.trainer, "the weights hold NaN or infinity"))
    if module.val_sums is not None:
        repeat_validation(checkpoint["loops"]["fit_loop"])
    for logger in module.trainer.loggers:  # otherwise buffered points would be missing after a kill
        logger.save()
