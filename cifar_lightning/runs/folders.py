"""Find, lock and clean up the folders of runs, and explain errors of the disk below them."""

import errno
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from cifar_lightning.config.keys import PATHS
from cifar_lightning.console import say
from cifar_lightning.errors import UserError, causes, first_line, regular

LOCK, RESULT = ".lock", "metrics.json"
UNSTARTED = (LOCK, ".hydra", "config.yaml", "cifar_lightning.log")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


def checkpoint_to_resume(config: DictConfig) -> Path:
    """The file that `key` names; in a run's folder last.ckpt to resume, best.ckpt to test.

    `last` stands for the newest run of the task that was stopped. Raises UserError if there is none.
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
    age = timedelta(seconds=max(0, round(time.time() - newest.stat().st_mtime)))
    say(f"resuming {shown(newest.parent.parent)}, stopped {age} ago")
    return newest


def checkpoint_file(text: str, first: str = "best", key: str = "ckpt_path") -> Path:
    """The file that `key` names; in a run's folder best.ckpt or last.ckpt, with `first` preferred."""
    path = Path(text).expanduser()
    names = sorted(("best", "last"), key=lambda name: name != first)
    if path.is_dir():
        found = [file for file in (path / "checkpoints" / f"{name}.ckpt" for name in names) if file.is_file()]
        if not found:
            raise UserError(f"{key}={text}: no checkpoints/best.ckpt or last.ckpt in this folder")
        return found[0]
    if not regular(path).is_file():
        if text.startswith("[") and text.endswith("]"):
            raise UserError(f"ckpt_path={text}: this command takes one checkpoint")
        beside = path.with_name("last.ckpt")
        hint = f"; there is {beside} (without validation there is no best checkpoint)" if beside.is_file() else ""
        raise UserError(f"{key}={text}: there is no such file{hint}")
    return path


def checkpoint_files(texts: Sequence[str]) -> list[Path]:
    """The files that one or more `ckpt_path` name, each a path or a list in brackets: `[A,B]`.

    The names of our folders contain commas, so those within a path that exists do not separate.
    Raises UserError for a file that is missing, or named twice.
    """
    found = [checkpoint_file(one) for text in texts for one in _listed(text)]
    for i, path in enumerate(found):
        if any(path.samefile(earlier) for earlier in found[:i]):
            raise UserError(f"ckpt_path: {path} is named twice; an ensemble counts each member once")
    return found


def _listed(text: str) -> list[str]:
    if not (text.startswith("[") and text.endswith("]")) or os.path.exists(text):
        return [text]
    parts = [part.strip() for part in text[1:-1].split(",")]
    paths: list[str] = []
    while parts:
        longest = range(len(parts), 0, -1)
        joined = {n: os.path.expanduser(_unquoted(",".join(parts[:n]))) for n in longest}
        taken = next((n for n, path in joined.items() if os.path.exists(path)), 1)
        paths.append(_unquoted(",".join(parts[:taken])))
        del parts[:taken]
    if "" in paths:
        raise UserError(f"ckpt_path={text}: a path is missing; write ckpt_path=[A,B]")
    return paths


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote this checkpoint, if the file is still in it."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Lock the folder for this process inside the block; yields False if another process holds the lock."""
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
    except OSError:  # another user's folder, where nothing can be locked
        return False


def is_finished(folder: Path) -> bool:
    return (folder / RESULT).exists()


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Lock the folder inside the block. Raises UserError if another process runs in it."""
    with claim(folder) as free:
        if not free:
            raise UserError(f"{shown(folder)}: another process runs in this folder; wait until it ends, or stop it")
        yield


def check_owner(folder: Path, checkpoint: Path | None) -> None:
    """Raise UserError for a folder that can't be this run's: in use, with another run's results, or with links inside.

    checkpoint: the file to resume from, if any; a run may resume in its own folder.
    """
    if folder.is_dir():
        with owned(folder):
            pass
    if checkpoint is not None and folder_of(checkpoint) == folder.resolve():
        inside = [path for part in (".", "checkpoints", ".hydra", "figures") for path in (folder / part).glob("*")]
        if linked := [path for path in inside if path.is_symlink()]:
            raise UserError(f"{linked[0]} is a symbolic link, which may lead anywhere; remove it")
        return
    held = "a finished run" if is_finished(folder) else "a stopped run" if any(folder.glob("checkpoints/*")) else ""
    if held:
        raise UserError(f"{shown(folder)} holds {held}: choose another, or resume with ckpt_path={shown(folder)}")


def withdraw_result(folder: Path) -> None:
    """Rename the result of a run that resumes, which is now out of date."""
    if is_finished(folder):
        (folder / RESULT).replace(folder / "metrics_before.json")


def remove_unstarted(folder: Path) -> None:
    """Remove the folder of a run that ended before its first step, if it holds only config and logs."""
    with suppress(OSError):
        inside = [path.name for path in folder.iterdir()]
        if all(name in UNSTARTED or name.startswith("events.out.tfevents.") for name in inside):
            shutil.rmtree(folder)
            for parent in folder.parents[:3]:  # runs/, <task_name>/ and logs/, if now empty
                parent.rmdir()


def how_to_go_on(folder: Path, overrides: Sequence[str]) -> str:
    """Tell the user of a stopped run how to resume it, from the directory where it was started."""
    found = [path for path in (folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")) if path.is_file()]
    if not found:
        return "No checkpoint was written yet: start it again"
    typed = [o for o in overrides if o.startswith(("test=", "paths."))]  # config.yaml in the folder has all others
    return f"Resume with:\n  {command(f'ckpt_path={shown(found[0])}', *typed)}"


def command(*arguments: str) -> str:
    """The command as one types it, without the quotes that a plain path does not need."""
    plain = [re.sub(rf"^({PATHS})='([\w./~+-]+)'$", r"\1=\2", argument) for argument in arguments]
    return shlex.join(["python", "-m", "cifar_lightning", *plain])


def shown(path: Path) -> Path:
    """The path for a message: relative if it is inside the current directory."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def errors_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk, a folder that became read-only or was deleted, and a killed data worker into a UserError.

    Libraries wrap the system's error, or fail again while they clean up, so all causes are searched.
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
        for cause in causes(error):
            if isinstance(cause, OSError) and is_of_disk(cause, folder):
                reason = f"can't write {cause.filename or folder}: {cause.strerror}. Free space or fix permissions"
            elif "DataLoader worker" in str(cause):
                reason = f"a data worker was killed ({first_line(cause)}); a lower data.num_workers needs less memory"
            else:
                continue
            raise UserError(f"{reason}. {how_to_go_on(folder, [])}") from error
        raise
    finally:
        threading.excepthook = hook


def is_of_disk(error: OSError, folder: Path) -> bool:
    """Whether the error is about writing to this folder, as far as it names a file."""
    if error.errno not in UNWRITABLE:
        return False
    return not error.filename or Path(error.filename).absolute().is_relative_to(folder.absolute())
