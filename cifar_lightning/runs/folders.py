"""Runs on disk: which checkpoint to go on from, with which config, and what to type for it."""

import errno
import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from cifar_lightning.console import say
from cifar_lightning.errors import UserError, causes, first_line, regular

LOCK, RESULT = ".lock", "metrics.json"
UNSTARTED = (LOCK, ".hydra", "config.yaml", "cifar_lightning.log")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


def checkpoint_to_resume(config: DictConfig) -> Path:
    """The file that `ckpt_path` names: of a run's folder the one to go on from (or to test, with train=false).

    `last` is that of the newest run of the task that was stopped. Raises UserError where there is none.
    """
    if config.ckpt_path != "last":
        return checkpoint_file(config.ckpt_path, "last" if config.train else "best").resolve()
    folder = Path(config.paths.log_dir) / config.task_name / "runs"
    found = [path for path in folder.glob("*/checkpoints/last.ckpt") if not is_finished(path.parent.parent)]
    stopped = [path for path in found if not is_running(path.parent.parent)]
    if not stopped:
        running = f" ({len(found)} still running)" if found else ""
        raise UserError(f"ckpt_path=last: no stopped run with a checkpoint in {folder}{running}; name a file instead")
    newest = max(stopped, key=lambda path: path.stat().st_mtime).resolve()
    say(f"goes on with {shown(newest.parent.parent)}, stopped {age(newest)} ago")
    return newest


def checkpoint_file(text: str, first: str = "best") -> Path:
    """The file that `ckpt_path` names; of a run's folder best.ckpt or last.ckpt, the `first` of them if it is there."""
    path = Path(text).expanduser()
    names = sorted(("best", "last"), key=lambda name: name != first)
    if path.is_dir():
        found = [file for file in (path / "checkpoints" / f"{name}.ckpt" for name in names) if file.is_file()]
        if not found:
            raise UserError(f"ckpt_path={text}: no checkpoints/best.ckpt or last.ckpt in this folder")
        return found[0]
    if not regular(path).is_file():
        beside = path.with_name("last.ckpt")
        hint = f"; there is {beside} (without validation no checkpoint is the best)" if beside.is_file() else ""
        raise UserError(f"ckpt_path={text}: there is no such file{hint}")
    return path


def age(path: Path) -> str:
    """How long ago the file was written, in words."""
    minutes = int((time.time() - path.stat().st_mtime) / 60)
    for unit, length in (("day", 24 * 60), ("hour", 60)):
        if minutes >= length:
            return f"{minutes // length} {unit}{'s' * (minutes >= 2 * length)}"
    return f"{minutes} minute{'s' * (minutes != 1)}"


def folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote this checkpoint, where it still lies there."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether no other process runs in this folder; if so, none will until the block ends."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        with claim(folder) as free:
            return not free
    except OSError:  # somebody else's folder, in which nothing can be locked
        return False


def is_finished(folder: Path) -> bool:
    return (folder / RESULT).exists()


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder. Raises UserError where one is in it."""
    with claim(folder) as free:
        if not free:
            raise UserError(f"{shown(folder)}: another process runs in this folder; wait for its end, or stop it")
        yield


def check_owner(folder: Path, checkpoint: Path | None) -> None:
    """Raise UserError for a folder that a run can't have: in use, with another run's results, or with links inside.

    checkpoint: what the run goes on from; its own folder is the one where it did so far.
    """
    if folder.is_dir():
        with owned(folder):
            pass
    if checkpoint is not None and folder_of(checkpoint) == folder.resolve():
        inside = [path for part in (".", "checkpoints", ".hydra", "figures") for path in (folder / part).glob("*")]
        if linked := [path for path in inside if path.is_symlink()]:
            raise UserError(f"{linked[0]} is a symbolic link, which no run makes: it may lead anywhere; remove it")
        return
    held = "a finished run" if is_finished(folder) else "a stopped run" if any(folder.glob("checkpoints/*")) else ""
    if held:
        raise UserError(f"{shown(folder)} holds {held}: choose another folder, or go on with ckpt_path={shown(folder)}")


def withdraw_result(folder: Path) -> None:
    """What the run had reached before it went on is its result no longer."""
    if is_finished(folder):
        (folder / RESULT).replace(folder / "metrics_before.json")


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
    typed = [o for o in overrides if o.startswith(("test=", "paths."))]  # all else is in the folder's config.yaml
    return f"Go on with:\n  {command(f'ckpt_path={shown(found[0])}', *typed)}"


def command(*arguments: str) -> str:
    return shlex.join(["python", "-m", "cifar_lightning", *arguments])


def shown(path: Path) -> Path:
    """Relative to the current directory, where it is inside."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def errors_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, a folder that can't be written any more and a killed data worker into a UserError.

    Libraries wrap the system's error, or fail again while they clear up after it.
    """
    hook = threading.excepthook
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else hook(args)  # TensorBoard's
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not folder.is_dir():
            raise UserError(f"{folder} was moved or deleted while its run was writing to it") from error
        disk = next(
            (cause for cause in causes(error) if isinstance(cause, OSError) and is_of_disk(cause, folder)), None
        )
        if disk is not None:
            raise UserError(
                f"can't write {disk.filename or folder}: {disk.strerror}. The checkpoints written so far are whole. "
                f"Make room or mend the folder. {how_to_go_on(folder, [])}"
            ) from error
        worker = next((cause for cause in causes(error) if "DataLoader worker" in str(cause)), None)
        if worker is not None:
            raise UserError(
                f"a data worker was ended ({first_line(worker)}); fewer data.num_workers take less memory. "
                f"{how_to_go_on(folder, [])}"
            ) from error
        raise
    finally:
        threading.excepthook = hook


def is_of_disk(error: BaseException, folder: Path) -> bool:
    """Whether the system refuses to write into the folder, as far as it says where."""
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
        return False
    return not error.filename or Path(error.filename).absolute().is_relative_to(folder.absolute())
