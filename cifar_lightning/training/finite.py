"""The error message for a loss or weights that are NaN or infinite."""

from pathlib import Path

import lightning as L


def not_finite(trainer: L.Trainer, what: str, when: str = "") -> str:
    """`what` became NaN or infinite: the step, the learning rate, the last good checkpoint, and what to try."""
    lr = trainer.optimizers[0].param_groups[0]["lr"]
    folders = {Path(c.dirpath) for c in trainer.checkpoint_callbacks if getattr(c, "dirpath", None)}  # type: ignore
    saved = [path for folder in folders for path in folder.glob("last.ckpt")]
    good = f"The last good checkpoint is {saved[0]}." if saved else "No checkpoint was written yet."
    return (
        f"{what} in step {trainer.global_step}{when} (epoch {trainer.current_epoch + 1}, learning rate {lr:.3g}). "
        f"{good} Try a lower optimizer.lr or trainer.gradient_clip_val=1.0; trainer.detect_anomaly=true names the "
        "operation that produced the first NaN"
    )
