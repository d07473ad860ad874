"""The LightningDataModule for all data sets in sets.py: files -> arrays -> splits -> batches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from cifar_lightning.data.arrays import Source
from cifar_lightning.data.device_loader import DeviceLoader, EvaluationLoader
from cifar_lightning.data.hardest import Hardest
from cifar_lightning.data.loader import Batch, Split, TrainingLoader, check_batch_size
from cifar_lightning.data.normalize import Normalization, normalization
from cifar_lightning.data.sets import SETS
from cifar_lightning.data.splits import Splits, load_splits
from cifar_lightning.data.variants import Imbalance, Noise, Variants
from cifar_lightning.data.worker_loader import WorkerLoader
from cifar_lightning.errors import UserError


class ImageDataModule(L.LightningDataModule):
    """Batches of (images uint8 [B, C, H, W], labels int64 [B]); ImageClassifier normalizes them.

    After `setup`: `train`, `val`, `test` (`Split`s of uint8 tensors), `train_indices` and `val_indices` (into the
    official training set), `true_labels` (int64 [N] where some of `train`'s are known to be wrong, else None),
    `class_names`, `image_shape`, `mean`, `std`, `checksum`.
    Without a Trainer: one process, CPU, epoch 0.
    """

    name: str

    def __init__(
        self,
        *,
        name: str = "cifar10",
        source: Literal["pickle", "torchvision"] = "pickle",
        root: str | Path = "data",
        verify: bool = True,
        val_size: int | float | None = 10_000,
        split_seed: int = 42,
        folds: int | None = None,
        fold: int = 0,
        labels: Literal["fine", "coarse"] = "fine",
        image_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        fit: Literal["crop", "squash"] = "crop",
        unreadable: Literal["refuse", "leave_out"] = "refuse",
        sealed: bool = False,
        labels_file: str | Path | None = None,
        labels_key: str | None = None,
        train_size: int | float | None = None,
        imbalance: float | None = None,
        imbalance_type: Imbalance = "exp",
        label_noise: float = 0.0,
        label_noise_type: Noise = "symmetric",
        variant_seed: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        drop_last: bool = False,
        size_schedule: Sequence[tuple[float, int]] | None = None,
        keep_hardest: float | None = None,
        normalize: Normalization = "channel",
        num_workers: int | None = None,
        pin_memory: bool = True,
        persistent_workers: bool = True,
        pipeline: Literal["device", "worker"] = "device",
        transforms: Sequence[Any] | Mapping[str, Any] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if name not in SETS:
            raise UserError(f"data.name={name} must be one of {', '.join(SETS)}")
        variants = Variants(train_size, imbalance, imbalance_type, label_noise, label_noise_type, variant_seed)
        self._source = Source(
            name,
            source,
            Path(root),
            verify,
            val_size,
            split_seed,
            labels=labels,
            image_size=image_size,
            channels=channels,
            fit=fit,
            unreadable=unreadable,
            folds=folds,
            fold=fold,
            labels_file=Path(labels_file).expanduser() if labels_file else None,
            labels_key=labels_key,
            variants=variants,
        )
        self.sealed = sealed
        self.name, self.root, self.normalize = name, Path(root), normalize
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self.size_schedule, self.keep_hardest = size_schedule or (), keep_hardest
        self.pipeline, self.seed = pipeline, seed
        self.transforms = list(transforms.values() if isinstance(transforms, Mapping) else transforms)
        _check_transforms(self.transforms, pipeline)
        self.workers: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "persistent_workers": persistent_workers,
        }
        self._splits: Splits | None = None
        self._train_loader: TrainingLoader | None = None

    def prepare_data(self) -> None:
        if not hasattr(self, "train"):
            self._load()

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "train"):
            return
        splits = self._load()
        check_batch_size(self.batch_size, len(splits.train_indices), self._world_size)
        self.val, self.test, self.train = splits.val, splits.test, splits.train
        self.train_indices, self.val_indices = splits.train_indices, splits.val_indices
        self.true_labels, self.class_names, self.checksum = splits.true_labels, splits.class_names, splits.checksum
        self.image_shape = tuple(self.train.images.shape[1:])
        self.mean, self.std = normalization(self.normalize, self.train.images, SETS[self.name].channel)

    def files(self) -> list[Path]:
        """The files that the images are read from."""
        return SETS[self.name].module().files(self._source, SETS[self.name].official)

    @property
    def has_validation(self) -> bool:
        return len(self.val) > 0

    def train_dataloader(self) -> TrainingLoader:
        self._train_loader = self._training_loader(
            device=self._device,
            num_workers=self.workers["num_workers"],
            **self._progress(),
            # With overfit_batches Lightning promises the same images in every epoch.
            shuffle=not getattr(self.trainer, "overfit_batches", 0),
            rank=self._rank,
            world_size=self._world_size,
            hardest=Hardest(len(self.train), self.keep_hardest) if self.keep_hardest else None,
            sizes=self.size_schedule,
        )
        return self._train_loader

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        return self._evaluation_loader(self.val) if len(self.val) else []

    def test_dataloader(self) -> EvaluationLoader:
        if self.sealed:
            raise UserError("data.sealed=true: the test set is closed; evaluate ckpt_path=RUN unseal=REASON opens it")
        return self._evaluation_loader(self.test)

    def teardown(self, stage: str | None = None) -> None:
        if isinstance(self._train_loader, WorkerLoader):
            self._train_loader.close()

    def augmented_examples(self, n: int) -> Batch:
        """The first `n` augmented training images, uint8 [n, C, H, W], and their labels; training is not affected."""
        self.setup()
        loader = self._training_loader(device=torch.device("cpu"), num_workers=0)
        images, labels, count = [], [], 0
        for some_images, some_labels in loader:
            images.append(some_images)
            labels.append(some_labels)
            count += len(some_labels)
            if count >= n:
                break
        first = torch.cat(images)[:n]
        if first.is_floating_point():
            first = (first * 255).round().clamp(0, 255).to(torch.uint8)
        return first, torch.cat(labels)[:n]

    def _load(self) -> Splits:
        if self._splits is None:
            self._splits = load_splits(self._source)
        return self._splits

    def _training_loader(self, *, device: torch.device, num_workers: int | None, **keys: Any) -> TrainingLoader:
        keys |= {"batch_size": self.batch_size, "drop_last": self.drop_last, "seed": self.seed}
        if self.pipeline == "device":
            return DeviceLoader(
                self.train, transforms=self.transforms, num_classes=len(self.class_names), device=device, **keys
            )
        pinned = self.workers["pin_memory"] and device.type == "cuda"
        workers = self.workers | {"num_workers": num_workers, "pin_memory": pinned}
        return WorkerLoader(self.train, transforms=self.transforms, **workers, **keys)

    def _progress(self) -> dict[str, Callable[[], Any]]:
        """Functions that return the Trainer's progress."""
        trainer = self.trainer
        if trainer is None:
            return {}
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return {
            "current_epoch": lambda: trainer.current_epoch,
            "batches_trained": lambda: progress.current.processed,  # type: ignore[attr-defined]
            "epochs": lambda: epochs_of(trainer),
        }

    def _evaluation_loader(self, split: Split) -> EvaluationLoader:
        return EvaluationLoader(
            split,
            batch_size=self.eval_batch_size,
            device=self._device,
            rank=self._rank,
            world_size=self._world_size,
        )

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def epochs_of(trainer: L.Trainer) -> float:
    """The length of the training in epochs, which `max_steps` may end within one; infinite if unlimited."""
    return trainer.estimated_stepping_batches * trainer.accumulate_grad_batches / trainer.num_training_batches


def _check_transforms(transforms: list[Any], pipeline: str) -> None:
    for transform in transforms:
        is_batched = hasattr(transform, "draw") and hasattr(transform, "apply")
        if not (is_batched if pipeline == "device" else callable(transform)):
            needed = "with draw and apply" if pipeline == "device" else "that can be called with one image"
            other = "worker" if pipeline == "device" else "device"
            raise UserError(
                f"augmentation.pipeline={pipeline} needs transforms {needed}, unlike {type(transform).__name__}: "
                f"did you mean augmentation.pipeline={other}?"
            )
