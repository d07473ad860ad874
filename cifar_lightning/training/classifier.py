"""The LightningModule that trains, validates and tests every network."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.data.datamodule import epochs_of
from cifar_lightning.data.hardest import Hardest
from cifar_lightning.errors import UserError
from cifar_lightning.optim.build import FLATTENING, build_optimizer
from cifar_lightning.optim.sam import SharpnessAware, statistics_kept
from cifar_lightning.optim.schedules import build_schedule
from cifar_lightning.training import lightning_internals, resuming
from cifar_lightning.training.distillation import Teacher, distilled
from cifar_lightning.training.losses import CrossEntropy, loss_of_heads
from cifar_lightning.training.memory_format import memory_format
from cifar_lightning.training.metrics import Sums, check_outputs, test_metrics
from cifar_lightning.training.operations import Operations
from cifar_lightning.training.plateau import check_validation, never_stepped, step_plateaus
from cifar_lightning.training.tta import TTA, averaged_logits
from cifar_lightning.training.uneven import accumulation_weight, gathered_rows, process_weight

log = logging.getLogger(__name__)

INITIALIZATION_IMAGES = 5_000  # training images for a network's initialize_from


class ImageClassifier(L.LightningModule):
    """Trains a network that maps images [N, C, H, W] to logits [N, K].

    `train/loss` is the mean of `loss`, which is minimized, including soft targets and weighted heads; `val/loss` and
    `test/loss` are the plain cross entropy. `optimizer` and `scheduler` are configs with `_target_`; `config` is the
    run's whole config in plain containers, stored in its checkpoints; `image_shape` is [C, H, W].

    A loss may have `start_epoch(epoch, epochs)`, which is called before each epoch, counted from 0.
    A network may have `weighted_heads(images) -> [(weight, logits), …]`, main head first, whose losses are added up in
    training, and `initialize_from(images)`, which computes weights from normalized training images.

    `test_tta`: the views that a test averages over (see tta.py).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str],
        config: dict[str, Any],
        image_shape: Sequence[int] | None = None,
        loss: nn.Module | None = None,
        teacher: Teacher | None = None,
        test_tta: TTA = "none",
        compile: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        flattens = str(optimizer.get("_target_")).endswith(FLATTENING)
        self.memory_format = memory_format(network, channels_last and not flattens)
        self.network = network.to(memory_format=self.memory_format)
        self.optimizer_config, self.scheduler_config = dict(optimizer), dict(scheduler)
        self.loss, self.teacher, self.test_tta = loss or CrossEntropy(), teacher, test_tta
        self.class_names = tuple(class_names)
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self.config = config
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        # Plain tensors, moved by _apply: a weight average (EMA) would include buffers, and its rounding drifts.
        self._scale = 1 / torch.tensor(self.std)[:, None, None]
        self._shift = -torch.tensor(self.mean)[:, None, None] * self._scale
        self._byte_scale = self._scale / 255
        self.temperature = 1.0  # divides the logits of predictions; not 1 where a score card kept one in the checkpoint
        self.images_trained = 0  # by this process
        self.operations = Operations()
        self.events: list[str] = []  # early stopping, lowered learning rates and the like, as text
        self.val_sums: Sums | None = None  # during validation
        self.val_means: dict[str, Tensor] = {}  # from the latest validation
        self.val_step: int | None = None  # its global step
        self.test_logits = torch.empty(0, len(class_names))  # filled by a test
        self.plain_test_logits = self.test_logits  # without test-time augmentation
        self.test_labels = torch.empty(0, dtype=torch.int64)
        self._resume: dict[str, Any] | None = None
        rho, adaptive = self.optimizer_config.get("sam_rho"), self.optimizer_config.get("sam_adaptive", False)
        self.sam = None if rho is None else SharpnessAware(network, rho, adaptive)
        if compile:
            self.network.compile()  # in place, which keeps the names in the state dict
        elif image_shape is not None:
            self.example_input_array = torch.zeros(2, *image_shape, dtype=torch.uint8)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "ImageClassifier":
        super()._apply(fn, *args, **kwargs)
        self._scale, self._shift, self._byte_scale = fn(self._scale), fn(self._shift), fn(self._byte_scale)
        return self

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, tuple) and all(tensor.device == device for tensor in batch):  # from DeviceLoader
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def normalized(self, images: Tensor) -> Tensor:
        """Normalized images, from uint8 or floating point in [0, 1]."""
        if images.dtype == torch.uint8:
            images = images.to(self._scale.dtype).mul_(self._byte_scale).add_(self._shift)
        else:
            images = (images * self._scale).add_(self._shift)
        return images.contiguous(memory_format=self.memory_format)

    def forward(self, images: Tensor) -> Tensor:
        return self._evaluated(self.normalized(images))

    def _evaluated(self, images: Tensor) -> Tensor:
        """The logits of normalized images, counted."""
        self.operations.add("evaluated", images, self._processes)
        return self.network(images)

    @property
    def _processes(self) -> int:
        return self._trainer.world_size if self._trainer else 1

    # Training

    def initialize_from(self, images: Tensor) -> None:
        """Call the network's `initialize_from`, if any, with training images uint8 [N, C, H, W]."""
        if hasattr(self.network, "initialize_from"):
            self.network.initialize_from(self.normalized(images[:INITIALIZATION_IMAGES]))  # type: ignore[operator]

    def on_train_start(self) -> None:
        self.train_sums, self.val_sums = Sums(self.device), None
        self.trained_parameters = {name for name, p in self.network.named_parameters() if p.requires_grad}
        self._hardest: Hardest | None = getattr(self.trainer.train_dataloader, "hardest", None)
        if self.teacher:
            self.teacher.to(self.device)
        self.val_means, self.val_step = {}, None
        if self._resume is not None:
            resuming.restore(self, self._resume)
            self._resume = None
        self._start_epoch()

    def on_train_epoch_start(self) -> None:  # not called when a run resumes in mid-epoch
        self.train_sums = Sums(self.device)
        self._start_epoch()

    def _start_epoch(self) -> None:
        if start_epoch := getattr(self.loss, "start_epoch", None):
            start_epoch(self.trainer.current_epoch, epochs_of(self.trainer))
        self._freeze_finished()

    def _freeze_finished(self) -> None:
        """Stop computing gradients of parameter groups whose `epochs` are over; their learning rate is 0."""
        if self.trainer.world_size > 1:  # DDP expects every gradient
            return
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                if self.trainer.current_epoch >= group.get("epochs", math.inf):
                    for parameter in group["params"]:
                        parameter.requires_grad_(False).grad = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, mean = self.batch_loss(batch)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0 and not lightning_internals.accumulates(self.trainer):
            self.write({"train/loss_step": mean}, self.trainer.global_step)
        if self.trainer.world_size > 1 and self.trainer.is_last_batch and not self.sums_loss:
            loss = loss * process_weight(self.trainer, len(batch[1]), self.device)
        return loss * accumulation_weight(self.trainer, batch_idx)

    def batch_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss to minimize and its mean over the images; also counts loss and correct predictions."""
        images, targets = self.normalized(batch[0]), batch[1]
        taught = None
        if self.teacher:
            taught = self.teacher.probabilities(batch[0])
            self.operations.add("taught", images, self._processes)
        loss, mean, logits = self._training_loss(images, targets, taught)
        mean = mean.detach()
        if self._hardest:
            self._hardest.note(cross_entropy(logits.detach(), targets, reduction="none"))
        self.train_sums.add(mean, logits.detach(), targets)
        self.images_trained += len(targets)
        if self.sam:
            self.sam.move_uphill(loss)
            with statistics_kept(self.network):
                loss = self._training_loss(images, targets, taught)[0]
        if self.sums_loss:
            loss = loss * self.trainer.world_size  # DDP averages over the processes
        return loss, mean

    def on_after_backward(self) -> None:
        if self.sam:
            self.sam.move_back()

    @property
    def sums_loss(self) -> bool:
        """Whether the loss is a sum over the images of a batch rather than their mean."""
        return getattr(self.loss, "reduction", "mean") == "sum"

    def _training_loss(self, images: Tensor, targets: Tensor, taught: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of normalized images, its mean over the images, and the logits for the accuracy."""
        self.operations.add("trained", images, self._processes)
        return loss_of_heads(self.network, images, partial(distilled, self.loss, self.teacher, targets, taught))

    def on_train_epoch_end(self) -> None:
        means = self._means("train", self.train_sums)
        self.log_dict(means, prog_bar=True, logger=False, sync_dist=True)
        self.write(means | {"epoch": torch.tensor(self.current_epoch)})
        if self.val_means and "val/loss" not in self.trainer.callback_metrics:  # resumed after the validation
            self.log_dict(self.val_means, logger=False)
        for event in step_plateaus(self.trainer):
            self.announce(event)

    def on_train_end(self) -> None:
        for event in never_stepped(self.trainer):
            self.announce(event)

    def write(self, metrics: Mapping[str, Tensor], step: int | None = None) -> None:
        """Log at once: Lightning would do so after the step's checkpoint, and a run may end in between.

        step: by default the epoch's last, as Lightning counts; an epoch that ended early may be resumed from there.
        """
        if step is None:
            step = self.trainer.global_step - int(self.trainer.is_last_batch)
        for logger in self.trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in metrics.items()}, step)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def announce(self, event: str) -> None:
        """Log an event, and record it in metrics.json."""
        self.events.append(event)
        log.info(event)

    def configure_optimizers(self) -> Any:
        trainer = self.trainer
        # With mixed precision Lightning does not clip for a fused optimizer, which may unscale within its step.
        clips_mixed = str(trainer.precision).endswith("-mixed") and bool(trainer.gradient_clip_val)
        optimizer = build_optimizer(self.network, self.optimizer_config, allow_fused=not clips_mixed)
        schedulers = build_schedule(optimizer, self.scheduler_config, trainer)
        for scheduler in schedulers:
            if scheduler.get("monitor", "").startswith("val/"):
                check_validation(trainer, scheduler["monitor"])
                scheduler["frequency"] = trainer.check_val_every_n_epoch or 1
        if self._resume is not None:
            lightning_internals.set_up_loader_again(trainer)
        return [optimizer], schedulers

    # Validation and test

    def on_validation_epoch_start(self) -> None:
        self.val_sums = Sums(self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images).float()
        assert self.val_sums is not None
        self.val_sums.add(cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        assert self.val_sums is not None
        means, self.val_sums = self._means("val", self.val_sums), None
        if not self.trainer.sanity_checking:
            self.val_means, self.val_step = means, self.trainer.global_step
        self.log_dict(means, prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._test_logits = [torch.empty(0, 2, len(self.class_names), device=self.device)]
        self._test_labels = [torch.empty(0, dtype=torch.int64, device=self.device)]

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        averaged, plain = averaged_logits(self._evaluated, self.normalized(images), self.test_tta)
        check_outputs(plain, self.class_names)
        self._test_logits.append(torch.stack([averaged, plain], 1))
        self._test_labels.append(labels)

    def on_test_epoch_end(self) -> None:
        """Set `test_logits` [N, K] and `test_labels` [N] of the whole test set in order, on the CPU.

        `plain_test_logits` are those without test-time augmentation.
        """
        logits = torch.cat([gathered_rows(self.trainer, rows) for rows in self._test_logits]).cpu()
        labels = torch.cat([gathered_rows(self.trainer, rows) for rows in self._test_labels]).cpu()
        with torch.inference_mode(False):  # clones outside are ordinary tensors
            self.test_logits, self.plain_test_logits = (some.clone() for some in logits.unbind(1))
            self.test_labels = labels.clone()
        del self._test_logits, self._test_labels
        metrics = test_metrics(self.test_logits, self.test_labels, self.class_names)
        self.log_dict({key: value for key, value in metrics.items() if isinstance(value, float)}, sync_dist=True)

    def _means(self, stage: str, sums: Sums) -> dict[str, Tensor]:
        """Means over the images of all processes, so the same in each (sync_dist only avoids Lightning's warning)."""
        loss, correct, images = self.trainer.strategy.reduce(sums.state(), reduce_op="sum").unbind()
        return {f"{stage}/loss": loss / images, f"{stage}/acc": correct / images}

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to use the weights, and to resume training in mid-epoch, in plain types."""
        checkpoint["cifar_lightning"] = {
            "config": self.config,
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "image_shape": list(self.image_shape or ()),
            "data_checksum": self._data_checksum,
        }
        if hasattr(self, "train_sums"):
            checkpoint["cifar_lightning"]["resume"] = resuming.state(self)
        if self.trainer.state.fn == "fit":
            resuming.complete(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint.get("cifar_lightning", {})
        self._resume = ours.get("resume")
        saved, here = ours.get("data_checksum"), self._data_checksum
        if self.trainer.state.fn == "fit" and None not in (saved, here) and saved != here:
            raise UserError(
                f"data.root holds other data (checksum {here}) than the run was trained on ({saved}): give the folder "
                "with the same images, or start a new run without ckpt_path"
            )

    @property
    def _data_checksum(self) -> str | None:
        return getattr(self.trainer.datamodule, "checksum", None)  # type: ignore[attr-defined]
