"""A data set of the table as a LightningDataModule: files -> arrays -> splits -> batches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from cifar_lightning.data.arrays import Source
from cifar_lightning.data.device_loader import DeviceLoader, EvaluationLoader
from cifar_lightning.data.loader import Batch, Split, TrainingLoader, check_batch_size
from cifar_lightning.data.normalize import CHOICES as NORMALIZATIONS
from cifar_lightning.data.normalize import normalization
from cifar_lightning.data.parts import Parts, load_parts
from cifar_lightning.data.sets import SETS
from cifar_lightning.data.worker_loader import WorkerLoader
from cifar_lightning.errors import UserError


class ImageDataModule(L.LightningDataModule):
    """Batches of (images uint8 [B, C, H, W], labels int64 [B]); normalisation is left to the network's side.

    After `setup`: `train`, `val`, `test` (`Split`s of uint8 tensors), `train_indices` and `val_indices` (into the
    official training set), `class_names`, `image_shape`, `mean`, `std`, `checksum`.
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
        val_size: int | float = 10_000,
        split_seed: int = 42,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        drop_last: bool = False,
        normalize: str = "channel",
        num_workers: int | None = None,
        pin_memory: bool = True,
        persistent_workers: bool = True,
        pipeline: str = "device",
        transforms: Sequence[Any] | Mapping[str, Any] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _choice("name", name, tuple(SETS))
        _choice("source", source, ("pickle", "torchvision"))
        _choice("pipeline", pipeline, ("device", "worker"), group="augmentation")
        if eval_batch_size < 1:
            raise UserError(f"data.eval_batch_size={eval_batch_size} must be at least 1.")
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers={num_workers} must be 0 (in the main process) or more.")
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"seed={seed} must be a whole number of at least 0.")
        _choice("normalize", normalize, NORMALIZATIONS)
        self.name, self.source, self.root, self.verify = name, source, Path(root), verify
        self.val_size, self.split_seed, self.normalize = val_size, split_seed, normalize
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self.pipeline, self.seed = pipeline, seed
        self.transforms = list(transforms.values() if isinstance(transforms, Mapping) else transforms)
        _check_transforms(self.transforms, pipeline)
        self.workers: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "persistent_workers": persistent_workers,
        }
        self._parts: Parts | None = None
        self._train_loader: TrainingLoader | None = None

    def prepare_data(self) -> None:
        if not hasattr(self, "train"):
            self._load()

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "train"):
            return
        parts = self._load()
        check_batch_size(self.batch_size, len(parts.train_indices), self._world_size)
        self.val, self.test, self.train = parts.val, parts.test, parts.train
        self.train_indices, self.val_indices = parts.train_indices, parts.val_indices
        self.class_names, self.checksum = parts.class_names, parts.checksum
        self.image_shape = tuple(self.train.images.shape[1:])
        self.mean, self.std = normalization(self.normalize, self.train.images, SETS[self.name].channel)

    @property
    def has_validation(self) -> bool:
        return len(self.val) > 0

    def train_dataloader(self) -> TrainingLoader:
        self._train_loader = self._training_loader(
            device=self._device,
            num_workers=self.workers["num_workers"],
            **self._progress(),
            # Lightning's promise for overfit_batches: the same images in every epoch.
            shuffle=not getattr(self.trainer, "overfit_batches", 0),
            rank=self._rank,
            world_size=self._world_size,
        )
        return self._train_loader

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        return self._evaluation_loader(self.val) if len(self.val) else []

    def test_dataloader(self) -> EvaluationLoader:
        return self._evaluation_loader(self.test)

    def teardown(self, stage: str | None = None) -> None:
        if isinstance(self._train_loader, WorkerLoader):
            self._train_loader.close()

    def augmented_examples(self, n: int) -> Batch:
        """The first `n` images, uint8 [n, C, H, W], and labels that training sees; nothing is disturbed by it."""
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

    def _load(self) -> Parts:
        if self._parts is None:
            source = Source(self.name, self.source, self.root, self.verify, self.val_size, self.split_seed)
            self._parts = load_parts(source)
        return self._parts

    def _training_loader(self, *, device: torch.device, num_workers: int | None, **keys: Any) -> TrainingLoader:
        keys |= {"batch_size": self.batch_size, "drop_last": self.drop_last, "seed": self.seed}
        if self.pipeline == "device":
            return DeviceLoader(
                self.train, transforms=self.transforms, num_classes=len(self.class_names), device=device, **keys
            )
        pinned = self.workers["pin_memory"] and device.type == "cuda"
        workers = self.workers | {"num_workers": num_workers, "pin_memory": pinned}
        return WorkerLoader(self.train, transforms=self.transforms, **workers, **keys)

    def _progress(self) -> dict[str, Callable[[], int]]:
        """Where the Trainer is, when asked."""
        trainer = self.trainer
        if trainer is None:
            return {}
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return {
            "current_epoch": lambda: trainer.current_epoch,
            "batches_trained": lambda: progress.current.processed,  # type: ignore[attr-defined]
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


def _choice(key: str, value: str, choices: tuple[str, ...], group: str = "data") -> None:
    if value not in choices:
        raise UserError(f"{group}.{key}={value} is none of the choices: {', '.join(choices)}.")


def _check_transforms(transforms: list[Any], pipeline: str) -> None:
    for transform in transforms:
        is_batched = hasattr(transform, "draw") and hasattr(transform, "apply")
        if not (is_batched if pipeline == "device" else callable(transform)):
            fit = "draw and apply" if pipeline == "device" else "a call with one image"
            other = "worker" if pipeline == "device" else "device"
            raise UserError(
                f"augmentation.pipeline={pipeline} needs transforms with {fit}: {type(transform).__name__} has none. "
                f"Did you mean augmentation.pipeline={other}?"
            )
