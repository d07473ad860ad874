"""The one LightningModule: whatever network it is given, it trains, validates and tests it the same way."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.errors import UserError
from cifar_lightning.training.metrics import Sums, test_metrics
from cifar_lightning.training.optimizers import build_optimizer
from cifar_lightning.training.schedules import build_schedule


class ImageClassifier(L.LightningModule):
    """Cross-entropy training of a network that maps images [N, 3, H, W] to logits [N, K].

    `train/loss` is what is minimised (label smoothing, soft targets and a network's weighted heads included);
    `val/loss` and `test/loss` are the plain cross-entropy. `optimizer` and `scheduler` are configs with `_target_`;
    `config` is the run's whole config in plain containers, kept in its checkpoints.

    A network may offer `weighted_heads(images) -> [(weight, logits), …]`, main head first: what enters the
    training loss in the place of its output.
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
        label_smoothing: float = 0.0,
        compile: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.optimizer_config, self.scheduler_config = dict(optimizer), dict(scheduler)
        self.label_smoothing = label_smoothing
        self.class_names = tuple(class_names)
        self.config = config
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        # Plain tensors, moved by _apply: an average of weights (EMA) takes the buffers too, and its rounding drifts.
        self._scale = 1 / torch.tensor(self.std)[:, None, None]
        self._shift = -torch.tensor(self.mean)[:, None, None] * self._scale
        self._byte_scale = self._scale / 255
        self._val_means: dict[str, Tensor] = {}  # of the latest validation
        self.test_logits = torch.empty(0, len(class_names))  # filled by a test
        self.test_labels = torch.empty(0, dtype=torch.int64)
        self._resume: dict[str, Any] | None = None
        if compile:
            self.network.compile()  # in place, so that the names in the state dict stay as they are
        else:
            self.example_input_array = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> "ImageClassifier":
        super()._apply(fn, *args, **kwargs)
        self._scale, self._shift, self._byte_scale = fn(self._scale), fn(self._shift), fn(self._byte_scale)
        return self

    def normalized(self, images: Tensor) -> Tensor:
        """Images uint8, or floating point in [0, 1], as the network wants them."""
        if images.dtype == torch.uint8:
            images = images.to(self._scale.dtype).mul_(self._byte_scale).add_(self._shift)
        else:
            images = (images * self._scale).add_(self._shift)
        return images.contiguous(memory_format=self.memory_format)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalized(images))

    # Training

    def on_train_start(self) -> None:
        self.train_sums, self._val_means = Sums(self.device), {}
        if self._resume is not None:
            self._restore(self._resume)
            self._resume = None

    def on_train_epoch_start(self) -> None:  # not called where a run resumes in mid-epoch
        self.train_sums = Sums(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        loss, logits = self._training_loss(self.normalized(images), targets)
        self.train_sums.add(loss.detach(), logits.detach(), targets)
        # Logged every so many steps only: self.log costs as much as a small network's step.
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, batch_size=len(images))
        if self.trainer.world_size > 1 and self.trainer.is_last_batch:
            loss = loss * self._process_weight(len(images))
        return loss

    def _training_loss(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of these (normalised) images, and the logits that count for the accuracy."""
        weighted_heads = getattr(self.network, "weighted_heads", None)
        if weighted_heads is None:
            logits = self.network(images).float()
            return cross_entropy(logits, targets, label_smoothing=self.label_smoothing), logits
        heads = [(weight, logits.float()) for weight, logits in weighted_heads(images)]
        losses = [w * cross_entropy(logits, targets, label_smoothing=self.label_smoothing) for w, logits in heads]
        return torch.stack(losses).sum(), heads[0][1]

    def _process_weight(self, images: int) -> Tensor:
        """Makes the mean over processes the mean over images, where the last batch is not shared out evenly."""
        mean = self.trainer.strategy.reduce(torch.tensor(float(images), device=self.device), reduce_op="mean")
        return images / mean

    def on_train_epoch_end(self) -> None:
        self.log_dict(self._means("train", self.train_sums), prog_bar=True, sync_dist=True)
        if self._val_means and "val/loss" not in self.trainer.callback_metrics:  # resumed after the validation
            self.log_dict(self._val_means, logger=False)
        self._step_plateaus()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def _step_plateaus(self) -> None:
        # Lightning does so after the epoch's checkpoint is written, and not at all in an epoch that was resumed.
        epochs = self.trainer.current_epoch + 1
        for config in self.trainer.lr_scheduler_configs:
            plateau = config.scheduler
            if isinstance(plateau, ReduceLROnPlateau) and plateau.last_epoch < epochs // config.frequency:
                assert config.monitor is not None
                plateau.step(self.trainer.callback_metrics[config.monitor])

    def configure_optimizers(self) -> Any:
        trainer = self.trainer
        # With mixed precision Lightning refuses to clip for a fused optimizer, which may unscale within its step.
        clips_mixed = str(trainer.precision).endswith("-mixed") and bool(trainer.gradient_clip_val)
        optimizer = build_optimizer(self.network, self.optimizer_config, allow_fused=not clips_mixed)
        schedulers = build_schedule(optimizer, self.scheduler_config, trainer)
        for scheduler in schedulers:
            if scheduler.get("monitor", "").startswith("val/"):
                self._refuse_without_validation(scheduler["monitor"])
                scheduler["frequency"] = trainer.check_val_every_n_epoch or 1
        if self._resume is not None:
            # Counting the steps has set the loader up, too early to be given its position in the epoch: once more.
            trainer.fit_loop._combined_loader = None
        return [optimizer], schedulers

    def _refuse_without_validation(self, monitor: str) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not (self.trainer.enable_validation and getattr(datamodule, "has_validation", True)):
            raise UserError(
                f"scheduler.monitor={monitor} needs a validation part: set data.val_size, or monitor train/loss"
            )

    # Validation and test

    def on_validation_epoch_start(self) -> None:
        self.val_sums = Sums(self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images).float()
        self.val_sums.add(cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        means = self._means("val", self.val_sums)
        if not self.trainer.sanity_checking:
            self._val_means = means
        self.log_dict(means, prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._test_logits = [torch.empty(0, len(self.class_names), device=self.device)]
        self._test_labels = [torch.empty(0, dtype=torch.int64, device=self.device)]

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self._test_logits.append(self(images).float())
        self._test_labels.append(labels)

    def on_test_epoch_end(self) -> None:
        """Leaves `test_logits` [N, K] and `test_labels` [N] of the whole test set, in its order, on the CPU."""
        logits = torch.cat([self._all_processes(rows) for rows in self._test_logits]).cpu()
        labels = torch.cat([self._all_processes(rows) for rows in self._test_labels]).cpu()
        with torch.inference_mode(False):  # clones outside are ordinary tensors
            self.test_logits, self.test_labels = logits.clone(), labels.clone()
        del self._test_logits, self._test_labels
        figures = test_metrics(self.test_logits, self.test_labels, self.class_names)
        scalars = {key: value for key, value in figures.items() if isinstance(value, float)}
        self.log_dict(scalars, sync_dist=True)

    def _means(self, stage: str, sums: Sums) -> dict[str, Tensor]:
        """Over the images of all processes, so equal in all (logged as sync_dist for Lightning's peace of mind)."""
        loss, correct, images = self.trainer.strategy.reduce(sums.state(), reduce_op="sum").unbind()
        return {f"{stage}/loss": loss / images, f"{stage}/acc": correct / images}

    def _all_processes(self, rows: Tensor) -> Tensor:
        """The rows of a whole batch, of which each process has a slice, in the order of the processes."""
        if self.trainer.world_size == 1:
            return rows
        counts = self.trainer.strategy.all_gather(torch.tensor(len(rows), device=rows.device)).tolist()
        if max(counts) == 0:
            return rows
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        shares = self.trainer.strategy.all_gather(padded)
        return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds, in plain types, what it takes to use the weights, and to go on training in mid-epoch."""
        checkpoint["cifar_lightning"] = {
            "config": self.config,
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if hasattr(self, "train_sums"):
            checkpoint["cifar_lightning"]["resume"] = self._resume_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resume = checkpoint.get("cifar_lightning", {}).get("resume")

    def _resume_state(self) -> dict[str, Any]:
        """What an uninterrupted run would know later on; of sums and random states, a row for each process."""
        rows = {"sums": self.train_sums.state(), "rng": torch.get_rng_state()}
        if self.device.type != "cpu":
            rows["device_rng"] = torch.get_device_module(self.device).get_rng_state()
        if self.trainer.world_size == 1 or self.trainer.interrupted:  # the others may be gone: wait for none
            rows = {key: row.cpu()[None] for key, row in rows.items()}
        else:
            rows = {key: self.trainer.strategy.all_gather(row.to(self.device)).cpu() for key, row in rows.items()}
        means = {key: value.item() for key, value in self._val_means.items()}
        return {"epoch": self.trainer.current_epoch, "val_means": means, **rows}

    def _restore(self, state: dict[str, Any]) -> None:
        row = min(self.global_rank, len(state["rng"]) - 1)
        if state["epoch"] == self.trainer.current_epoch:  # not where the epoch's last step was the checkpoint's
            self.train_sums.load(state["sums"][row])
        self._val_means = {key: self.train_sums.loss.new_tensor(mean) for key, mean in state["val_means"].items()}
        torch.set_rng_state(state["rng"][row].clone())  # torch reads the storage from its start, a row is further on
        if "device_rng" in state and self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(state["device_rng"][row].clone())
