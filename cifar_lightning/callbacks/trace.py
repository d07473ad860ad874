"""Record what tells whether a run, repeated, is the same: its initial weights and the loss at every logged step."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cifar_lightning.reporting.files import write_csv


class Trace(Callback):
    """Writes losses.csv (step, loss): of the first step, and of those that loggers see (`trainer.log_every_n_steps`).

    `initial_weights` is the checksum of the weights before the first step, `starts` the step, `max_epochs` and
    `max_steps` of each time that training began or was resumed. All are in checkpoints, so a resumed run goes on with
    them.
    """

    may_miss_steps = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.initial_weights: str | None = None
        self.starts: list[list[int | None]] = []
        self._steps: list[int] = []
        self._losses: list[Tensor] = []  # on the device: reading one waits for it

    def state_dict(self) -> dict[str, Any]:
        steps, losses = torch.tensor(self._steps, dtype=torch.int64), self._on_cpu()
        return {"initial_weights": self.initial_weights, "starts": self.starts, "steps": steps, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.starts:  # a test reads the best checkpoint, which is older
            return
        self.initial_weights, self.starts = state_dict["initial_weights"], [*state_dict["starts"]]
        self._steps, self._losses = state_dict["steps"].tolist(), [*state_dict["losses"]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0 and trainer.world_size == 1:  # one process may hold a part of the weights only
            self.initial_weights = weights_checksum(pl_module.state_dict())
        self.starts.append([trainer.global_step, trainer.max_epochs, trainer.max_steps])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, loss = trainer.global_step, outputs.get("loss") if isinstance(outputs, dict) else None
        due = step == 1 or (step and step % trainer.log_every_n_steps == 0)  # type: ignore[attr-defined]
        if due and isinstance(loss, Tensor) and step not in self._steps[-1:]:  # once, where gradients accumulate
            self._steps.append(step)
            self._losses.append(loss.detach())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            losses = self._on_cpu().tolist()
            write_csv(self.path, [{"step": s, "loss": loss} for s, loss in zip(self._steps, losses, strict=True)])

    def record(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        """What metrics.json holds of it; `weights` is the checksum of those that the metrics are of."""
        weights = weights_checksum(module.state_dict()) if trainer.world_size == 1 else None
        return {"initial_weights": self.initial_weights, "starts": self.starts, "weights": weights}

    def _on_cpu(self) -> Tensor:
        """The losses so far, float64 [N]."""
        return torch.tensor([loss.item() for loss in self._losses], dtype=torch.float64)


def weights_checksum(state: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over the names and bytes of a state dict's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
