"""A training, validation and test whose results must not depend on the number of processes; run under torchrun."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from cifar_lightning.data.device_loader import DeviceLoader, EvaluationLoader
from cifar_lightning.data.loader import Split
from helpers.small import Batches, small_classifier, small_trainer


class SaveAtStep(Checkpoint):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def network(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(192, 10))


def experiment(
    folder: Path, global_batch: int, dropout: float = 0.0, ckpt_path: Path | None = None, **keys: Any
) -> dict[str, Any]:
    """37 training images in steps of 16 (the last of 5), 21 for validation and test; what it gives, as plain data."""
    train, val = Batches(n=37), Batches(n=21, seed=1)
    trainer = small_trainer(max_epochs=3, enable_checkpointing=True, callbacks=[SaveAtStep(folder / "it.ckpt")], **keys)
    share: dict[str, Any] = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    classifier = small_classifier(network(dropout))
    torch.manual_seed(10 + trainer.global_rank if ckpt_path is None else 99)
    train_loader = DeviceLoader(
        Split(train.images, train.labels),
        batch_size=global_batch // trainer.world_size,
        current_epoch=lambda: trainer.current_epoch,
        **share,
    )
    val_loader = EvaluationLoader(Split(val.images, val.labels), batch_size=4, **share)
    trainer.fit(classifier, train_loader, val_loader, ckpt_path=ckpt_path, weights_only=True)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    trainer.test(classifier, val_loader, verbose=False)
    figures |= {key: float(value) for key, value in trainer.callback_metrics.items()}
    tested = {"logits": classifier.test_logits, "labels": classifier.test_labels}
    return {"weights": dict(classifier.network.state_dict()), "figures": figures, **tested}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    keys: dict[str, Any] = {"strategy": "ddp", "devices": 2}
    results = {
        "plain": experiment(folder / "plain", 16, **keys),
        "dropout": experiment(folder / "dropout", 16, dropout=0.5, **keys),
        "resumed": experiment(folder / "again", 16, dropout=0.5, ckpt_path=folder / "dropout" / "it.ckpt", **keys),
    }
    if torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
