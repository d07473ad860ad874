"""Runs on disk: which checkpoint to go on from, with which config, and what to type for it."""

import copy
import errno
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config import parse_overrides, plain
from cifar_lightning.errors import UserError, causes

# What may differ when a run goes on: how long, where and how it is watched, not what is trained.
FREE = (
    "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.accelerator", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.log_every_n_steps", "trainer.profiler", "trainer.detect_anomaly",
    "trainer.limit_test_batches", "logger", "callbacks.progress_bar", "callbacks.model_summary",
    "callbacks.last_checkpoint", "callbacks.finite_loss", "callbacks.direct_steps", "paths", "data.root",
    "data.verify", "data.num_workers", "data.pin_memory", "data.persistent_workers", "data.eval_batch_size",
    "train", "test", "test_tta", "ckpt_path", "trust", "tags", "task_name", "optimized_metric", "compile",
)  # fmt: skip
UNSTARTED = (".hydra", "config.yaml", "cifar_lightning.log")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm")


def checkpoint_to_resume(config: DictConfig) -> Path:
    """The file that `ckpt_path` names; `last` is that of the newest run of the task that did not finish.

    Raises UserError where there is none.
    """
    if config.ckpt_path != "last":
        path = Path(config.ckpt_path)
        if not path.is_file():
            raise UserError(f"ckpt_path={config.ckpt_path}: there is no such file")
        return path.resolve()
    folder = Path(config.paths.log_dir) / config.task_name / "runs"
    unfinished = [
        path for path in folder.glob("*/checkpoints/last.ckpt") if not (path.parent.parent / "metrics.json").exists()
    ]
    if not unfinished:
        raise UserError(f"ckpt_path=last: no unfinished run with a checkpoint in {folder}; name a file instead")
    return max(unfinished, key=lambda path: path.stat().st_mtime).resolve()


def folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote this checkpoint, where it still lies there."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def resumed_config(saved: dict[str, Any], config: DictConfig, typed: Sequence[str]) -> DictConfig:
    """The saved config with what was typed and may change.

    Raises UserError, naming the key, for a typed override that would make it another experiment.
    """
    merged, typed_values = OmegaConf.create(copy.deepcopy(saved)), plain(config)
    for key in ("paths", "ckpt_path", "train", "test", "trust"):
        merged[key] = config[key]
    for override in parse_overrides(typed):
        key = override.key_or_group
        if key == "trainer":
            for name in HARDWARE:
                merged.trainer[name] = config.trainer[name]
        elif may_change(key):
            OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False, force_add=True)
        elif key in ("experiment", "debug"):
            refuse_changes(saved, typed_values, "")
        else:
            section = key.lstrip("+~")
            refuse_changes(
                {section: plain(OmegaConf.select(OmegaConf.create(saved), section))},
                {section: plain(OmegaConf.select(config, section))},
                "",
            )
    return merged


def refuse_changes(saved: dict[str, Any], typed: dict[str, Any], prefix: str) -> None:
    for key in [*typed, *(key for key in saved if key not in typed)]:
        name, value = prefix + key, typed.get(key)
        if may_change(name) or name == "choices":
            continue
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            refuse_changes(saved[key], value, name + ".")
        elif saved.get(key) != value:
            raise UserError(
                f"{name}={value}: the checkpoint's run has {saved.get(key)}; a resumed run can't change it. "
                f"Leave it out, or start a new run without ckpt_path"
            )


def remove_unstarted(folder: Path) -> None:
    """Remove the folder of a run that ended before its first step: nothing but its config and log is in it."""
    with suppress(OSError):
        inside = [path.name for path in folder.iterdir()]
        if all(name in UNSTARTED or name.startswith("events.out.tfevents.") for name in inside):
            shutil.rmtree(folder)
            for parent in folder.parents[:3]:  # runs/, <task_name>/ and logs/, where this was the only run
                parent.rmdir()


def how_to_go_on(folder: Path, overrides: Sequence[str]) -> str:
    """For a run that has been stopped: the command that resumes it, from the directory where it was started."""
    found = [path for path in (folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")) if path.is_file()]
    if not found:
        return "No checkpoint had been written yet: start it again"
    # All else is in the checkpoint's config, which is not asked what of one's own may be built (training/trust.py).
    typed = [o for o in overrides if o.startswith(("test=", "paths.", "trust=")) or "_target_" in o]
    return f"Go on with:\n  {command(f'ckpt_path={shown(found[0])}', *typed)}"


def command(*arguments: str) -> str:
    return shlex.join(["python", "-m", "cifar_lightning", *arguments])


def shown(path: Path) -> Path:
    """Relative to the current directory, where it is inside."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turn what comes of a full disk or of a folder that may not be written any more into a UserError.

    Libraries wrap the system's error, or fail again while they clear up after it.
    """
    try:
        yield
    except Exception as error:
        cause = next((cause for cause in causes(error) if is_of_disk(cause, folder)), None)
        if isinstance(error, UserError) or not isinstance(cause, OSError):
            raise
        raise UserError(
            f"can't write {cause.filename or folder}: {cause.strerror}. The checkpoints written so far are whole. "
            f"Make room or mend the folder. {how_to_go_on(folder, [])}"
        ) from error


def is_of_disk(error: BaseException, folder: Path) -> bool:
    """Whether the system refuses to write into the folder, as far as it says where."""
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
        return False
    return not error.filename or Path(error.filename).absolute().is_relative_to(folder.absolute())
