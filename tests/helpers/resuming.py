"""Small runs that are stopped and resumed, and what it means that they end the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torchvision.transforms import v2

from cifar_lightning.callbacks.averages import exponential_average
from cifar_lightning.callbacks.finite_loss import FiniteLoss
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.interruption import Interruption, StopSignals
from cifar_lightning.callbacks.last_checkpoint import LastCheckpoint, WholeFiles
from cifar_lightning.data.augmentation.mixing import Mixup
from cifar_lightning.data.device_loader import DeviceLoader, EvaluationLoader
from cifar_lightning.data.loader import Split, TrainingLoader
from cifar_lightning.data.worker_loader import WorkerLoader
from cifar_lightning.errors import Interrupted
from cifar_lightning.training.classifier import ImageClassifier
from helpers.records import assert_identical
from helpers.small import CONSTANT, SGD, Batches, small_classifier, small_network, small_trainer
from helpers.stopping import SignalAt

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01, "decay_norms_and_biases": False}
SCHEDULES = "cifar_lightning.optim.schedules."
PLATEAU = {"_target_": SCHEDULES + "plateau", "patience": 0, "threshold": 0.9}
PER_IMAGE = [v2.RandomHorizontalFlip(), v2.RandomResizedCrop(8), v2.ColorJitter(0.5)]

# Kinds of training: keys for `train`.
KINDS: dict[str, dict[str, Any]] = {
    "dropout": {"scheduler": {"_target_": SCHEDULES + "onecycle"}},
    "average": {"scheduler": {"_target_": SCHEDULES + "linear"}, "callbacks": [lambda: exponential_average(0.9)]},
    "plateau and early stopping": {
        "scheduler": PLATEAU,
        "callbacks": [lambda: EarlyStopping("val/loss", patience=2, min_delta=0.05)],
    },
    "mixup": {"augmentation": [Mixup()]},
    "workers": {"augmentation": PER_IMAGE},
    "accumulated": {"accumulate_grad_batches": 2},
    "validation in mid-epoch": {"val_check_interval": 2},
    "validation by steps": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "no validation": {"limit_val_batches": 0},
    "momentum": {"optimizer": SGD},
    "layer decay": {"optimizer": {**SGD, "layer_decay": 0.5}, "scheduler": {"_target_": SCHEDULES + "cosine"}},
    "sam": {"optimizer": {**SGD, "sam_rho": 0.1}},
    "muon": {"optimizer": {"_target_": "cifar_lightning.optim.muon.Muon", "lr": 0.02}},
}


Trained = tuple[ImageClassifier, L.Trainer, History]


class Shuffled(L.LightningDataModule):
    """38 images in 5 batches, another order in every epoch."""

    has_validation = True

    def __init__(self, augmentation: Sequence[Any] = ()) -> None:
        super().__init__()
        self.augmentation = augmentation

    def train_dataloader(self) -> TrainingLoader:
        trainer = self.trainer
        assert trainer is not None
        data = Batches()
        kind: dict[str, Any] = {"transforms": self.augmentation}
        kind |= {"num_workers": 0} if self.augmentation is PER_IMAGE else {}
        return (WorkerLoader if self.augmentation is PER_IMAGE else DeviceLoader)(
            Split(data.images, data.labels),
            batch_size=8,
            current_epoch=lambda: trainer.current_epoch,
            batches_trained=lambda: trainer.fit_loop.epoch_loop.batch_progress.current.processed,  # type: ignore[attr-defined]
            **kind,
        )

    def val_dataloader(self) -> EvaluationLoader:
        data = Batches(n=20, seed=1)
        return EvaluationLoader(Split(data.images, data.labels), batch_size=7)


def train(
    folder: Path,
    *,
    every_minutes: float | None = None,
    optimizer: dict[str, Any] = ADAMW,
    scheduler: dict[str, Any] = CONSTANT,
    callbacks: Sequence[Callable[[], L.Callback]] = (),
    augmentation: Sequence[Any] = (),
    more: Sequence[L.Callback] = (),
    ckpt_path: Path | None = None,
    **keys: Any,
) -> Trained:
    """Train as a run does, from random numbers that resuming has to replace; classifier, trainer and history."""
    network = small_network(dropout=0.5)
    torch.manual_seed(1 if ckpt_path is None else 99)
    classifier = small_classifier(network, optimizer=optimizer, scheduler=scheduler)
    history = History(folder / "history.csv")
    with StopSignals(lambda: "advice") as signals:
        trainer = small_trainer(
            callbacks=[
                *more,
                history,
                FiniteLoss(),
                *(make() for make in callbacks),
                LastCheckpoint(folder, every_minutes),
                Interruption(signals),
            ],
            plugins=[WholeFiles()],
            enable_checkpointing=True,
            **keys,
        )
        trainer.fit(classifier, datamodule=Shuffled(augmentation), ckpt_path=ckpt_path, weights_only=True)
    return classifier, trainer, history


def stopped(folder: Path, *, at: tuple[Any, ...], **keys: Any) -> Path:
    """Train until a signal comes; the checkpoint to go on from."""
    try:
        train(folder, more=[SignalAt(*at)], **keys)
    except Interrupted:
        return folder / "last.ckpt"
    raise AssertionError("nothing has stopped it")


def assert_same_run(resumed: Trained, whole: Trained) -> None:
    """Weights, optimizer, callbacks' states and every figure of every epoch, to the last bit."""
    (classifier, trainer, history), (expected, reference, whole_history) = resumed, whole
    assert_identical(classifier.state_dict(), expected.state_dict())
    assert_identical(trainer.optimizers[0].state_dict(), reference.optimizers[0].state_dict())
    assert rows(history) == rows(whole_history)
    assert history.images == whole_history.images
    assert trainer.global_step == reference.global_step
    for callback, other in zip(trainer.early_stopping_callbacks, reference.early_stopping_callbacks, strict=True):
        assert_identical(callback.state_dict(), other.state_dict())


def rows(history: History) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
