"""What a checkpoint holds beside Lightning's own state, so that a resumed run is the uninterrupted one."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cifar_lightning.errors import UserError
from cifar_lightning.training.finite import not_finite
from cifar_lightning.training.lightning_internals import leave_finished_epoch, repeat_validation

if TYPE_CHECKING:
    from cifar_lightning.training.classifier import ImageClassifier


def state(module: "ImageClassifier") -> dict[str, Any]:
    """What an uninterrupted run would know later on; of sums and random states, a row for each process."""
    trainer, device = module.trainer, module.device
    rows = {"sums": module.train_sums.state(), "rng": torch.get_rng_state()}
    if device.type != "cpu":
        rows["device_rng"] = torch.get_device_module(device).get_rng_state()
    if trainer.world_size == 1 or trainer.interrupted:  # the others may be gone: wait for none
        rows = {key: row.cpu()[None] for key, row in rows.items()}
    else:
        rows = {key: trainer.strategy.all_gather(row.to(device)).cpu() for key, row in rows.items()}
    means = {key: value.item() for key, value in module.val_means.items()}
    return {
        "epoch": trainer.current_epoch,
        "val_means": means,
        "val_step": module.val_step,
        "events": module.events,
        **rows,
    }


def restore(module: "ImageClassifier", saved: dict[str, Any]) -> None:
    leave_finished_epoch(module.trainer)
    row = min(module.global_rank, len(saved["rng"]) - 1)
    if saved["epoch"] == module.trainer.current_epoch:  # not where the epoch's last step was the checkpoint's
        module.train_sums.load(saved["sums"][row])
    module.val_means = {key: module.train_sums.loss.new_tensor(mean) for key, mean in saved["val_means"].items()}
    module.val_step = saved.get("val_step")
    module.events = list(saved.get("events", []))
    torch.set_rng_state(saved["rng"][row].clone())  # torch reads the storage from its start, a row is further on
    if "device_rng" in saved and module.device.type != "cpu":
        torch.get_device_module(module.device).set_rng_state(saved["device_rng"][row].clone())


def complete(module: "ImageClassifier", checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint of training fit to go on from.

    Raises UserError, before it is written, where the weights are no numbers any more.
    """
    weights: list[Tensor] = [tensor for tensor in checkpoint["state_dict"].values() if tensor.is_floating_point()]
    if not all(tensor.isfinite().all() for tensor in weights):
        raise UserError(not_finite(module.trainer, "the weights hold NaN or infinity"))
    if module.val_sums is not None:
        repeat_validation(checkpoint["loops"]["fit_loop"])
    for logger in module.trainer.loggers:  # what they hold back would be missing in the curves of a killed run
        logger.save()
