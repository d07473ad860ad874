"""Averages of the weights, which are validated, saved and tested in the place of those that are trained.

Lightning's WeightAveraging keeps both, saves both and swaps them for a validation; here is what it averages, and when.
"""

import math
from abc import abstractmethod
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from cifar_lightning.data.datamodule import epochs_of

STATISTICS_IMAGES = 10_000  # training images for batch norm's statistics


def exponential_average(decay: float) -> WeightAveraging:
    """Moves the average by 1 - `decay` towards the weights after each step, and further in the first steps.

    Without this warm-up 40 steps at a decay of 0.999 would leave 96 % of the initial weights. Its formula is
    TensorFlow's (tf.train.ExponentialMovingAverage, num_updates).
    """

    def update(averages: list[Tensor], weights: list[Tensor], updates: Any) -> None:
        n = int(updates)
        moved = 1 - min(decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, moved)
        else:  # counters
            torch._foreach_copy_(averages, weights)

    return WeightAveraging(multi_avg_fn=torch.no_grad()(update))


class _ComputedWhenNeeded(WeightAveraging):
    """An average that is brought up to date before a validation, a checkpoint and the end of the training."""

    def __init__(self) -> None:
        super().__init__(use_buffers=False)

    @abstractmethod
    def update(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Bring the average up to date."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return False

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average_model is not None:
            self.update(trainer, pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            self.update(trainer, pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.update(trainer, pl_module)
        super().on_train_end(trainer, pl_module)


class StochasticAverage(_ComputedWhenNeeded):
    """The mean of the weights at the ends of the epochs from `start` (a share of the training) on; before, the weights.

    P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018 (arXiv 1803.05407).
    Batch norm's statistics are computed anew for each new average.
    """

    may_miss_steps = True

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and trainer.global_step > self._latest_update_step and self._has_started(trainer):
            assert self._average_model is not None
            self._average_model.update_parameters(pl_module)
            self._latest_update_step = trainer.global_step
            compute_statistics(self._average_model.module, trainer)

    def update(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert self._average_model is not None
        if not self._average_model.n_averaged:
            self._average_model.module.load_state_dict(module.state_dict())

    def _has_started(self, trainer: L.Trainer) -> bool:
        return trainer.current_epoch + 1 >= math.ceil(self.start * epochs_of(trainer))


class OptimizersAverage(_ComputedWhenNeeded):
    """The weights that an optimizer with `eval` and `train`, such as a schedule-free one, averages itself.

    A. Defazio et al., "The Road Less Scheduled", 2024 (arXiv 2405.15682), whose authors have batch norm's statistics
    computed anew for them.
    """

    may_miss_steps = True

    def update(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.global_step == self._latest_update_step:
            return
        assert self._average_model is not None
        trained = [parameter.detach().clone() for parameter in module.parameters()]
        optimizer: Any = trainer.optimizers[0]
        optimizer.eval()
        self._average_model.module.load_state_dict(module.state_dict())
        optimizer.train()
        with torch.no_grad():  # exactly what they were: `train` would return with an error of rounding
            for parameter, before in zip(module.parameters(), trained, strict=True):
                parameter.copy_(before)
        self._latest_update_step = trainer.global_step
        compute_statistics(self._average_model.module, trainer)


def compute_statistics(classifier: torch.nn.Module, trainer: L.Trainer) -> None:
    """Compute batch norm's running statistics from augmented training images; random states are not changed."""
    if not any(isinstance(module, _BatchNorm) for module in classifier.modules()):
        return
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    size = min(getattr(data, "batch_size", 128), len(data.train))
    images = min(STATISTICS_IMAGES, len(data.train)) // size * size  # whole batches
    floating = data.train.images.is_floating_point()  # a data module of the user's own, whose images are normalized
    chosen = data.train.images[:images] if floating else data.augmented_examples(images)[0]
    with torch.random.fork_rng(), trainer.precision_plugin.forward_context():
        update_bn(chosen.split(size), classifier, device=trainer.strategy.root_device)
