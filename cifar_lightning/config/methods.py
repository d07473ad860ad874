"""Check that the chosen methods fit the trainer, the optimizer and each other."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config.monitors import is_own
from cifar_lightning.errors import UserError

AVERAGING_OPTIMIZERS = ("ScheduleFree", "SPlus")  # of pytorch_optimizer; they have `eval` and `train`


def check_methods(config: DictConfig) -> None:
    """Raise UserError, naming both sides, for a method that can't work with another setting."""
    chosen = dict(methods(config))
    for method, (fits, other, why) in conflicts(config):
        if method in chosen and not fits:
            raise UserError(f"{chosen[method]} can't be used with {other}: {why}")
    if config.optimizer.get("sam_adaptive") and "sam" not in chosen:
        raise UserError("optimizer.sam_adaptive=true needs optimizer.sam_rho, e.g. optimizer.sam_rho=0.5")


def methods(config: DictConfig) -> Iterator[tuple[str, str]]:
    """The methods that the config uses, each as it was typed."""
    for method, key in (
        ("sam", "optimizer.sam_rho"),
        ("average", "ema_decay"),
        ("average", "swa_start"),
        ("teacher", "teacher.ckpt_path"),
        ("sizes", "data.size_schedule"),
        ("hardest", "data.keep_hardest"),
    ):
        if (value := OmegaConf.select(config, key)) is not None:
            yield method, f"{key}={value}".replace(" ", "")
    target = str(config.optimizer._target_)
    if target.endswith(".Muon"):
        yield "muon", "optimizer=muon"
    if target.rpartition(".")[2].startswith(AVERAGING_OPTIMIZERS):
        yield "own average", f"optimizer.name={target.rpartition('.')[2]}"


def conflicts(config: DictConfig) -> Iterator[tuple[str, tuple[bool, str, str]]]:
    """For each method: whether a setting fits it, the setting, and why not."""
    trainer = config.trainer
    whole, sharded = trainer.strategy != "fsdp", "trainer.strategy=fsdp"
    for method in ("sam", "average", "own average", "muon"):
        yield method, (whole, sharded, "it needs whole weights in each process; choose trainer.strategy=ddp")
    scaled, half = trainer.precision not in ("16-mixed", 16, "16"), f"trainer.precision={trainer.precision}"
    yield "sam", (scaled, half, "its first gradient would not be scaled; choose bf16-mixed")
    both = config.ema_decay is None or config.get("swa_start") is None
    yield "average", (both, f"ema_decay={config.ema_decay}", "choose one average")
    averaged = config.ema_decay is None and config.get("swa_start") is None
    yield "own average", (averaged, "ema_decay or swa_start", "this optimizer has an average of its own")
    ours = str(config.module._target_).startswith("cifar_lightning.")
    for method in ("sam", "teacher", "hardest"):
        yield method, (ours, f"module._target_={config.module._target_}", "that module trains in its own way")
    for method in ("sizes", "hardest"):
        yield method, (not is_own(config), f"data._target_={config.data._target_}", "that module has its own batches")
    one = trainer.devices in (1, "1", [0]) and trainer.num_nodes == 1
    yield "hardest", (one, f"trainer.devices={trainer.devices}", "the processes would choose different images")
    finite = trainer.max_steps != -1 or (trainer.max_epochs or 0) > 0
    yield "sizes", (finite, f"trainer.max_epochs={trainer.max_epochs}", "shares of the training need its length")


def is_size_schedule(value: Any) -> bool:
    """Whether this is a list of pairs of a rising share of the training and an image size in pixels."""
    pairs = isinstance(value, list) and value and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    if not pairs or not all(type(share) in (int, float) and type(size) is int for share, size in value):
        return False
    shares = [share for share, _ in value]
    return shares[0] > 0 and shares[-1] <= 1 and shares == sorted(set(shares)) and all(4 <= s <= 1024 for _, s in value)
