"""The test ledger: an append-only file beside the logs with a line for every look at test labels.

Each line is a JSON object with a hash over its content and the hash of the line before, so that an edited line, or one
that was taken out, shows. Lines cut off at the end show because a result records the hash of its own line.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cifar_lightning.errors import UserError, regular
from cifar_lightning.reporting.files import read_text

NAME = "test_ledger.jsonl"
LOGS = Path("logs")  # the default of paths.log_dir
PATIENCE = 60.0  # seconds for other jobs to write their lines
Line = dict[str, Any]


def ledger_of(path: Path, log_dir: str | None = None) -> Path:
    """The ledger of a run or checkpoint: in `log_dir`, else in the nearest folder above that has one, else in logs/."""
    if log_dir:
        return Path(log_dir).expanduser() / NAME
    above = path.absolute().parents
    return next((folder / NAME for folder in above if (folder / NAME).is_file()), LOGS / NAME)


def note(file: Path, look: Mapping[str, Any]) -> Line:
    """Append a look and return its line, with its `number`, its `hash`, and the hash of the line before.

    Raises UserError where the file can't be written, or isn't one.
    """
    with_time = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"), **look}
    try:
        with _locked(file):
            content = regular(file).read_bytes() if file.exists() else b""
            lines = content.splitlines()
            before = _parsed(lines[-1].decode(errors="replace")) if lines else {}
            line = {"number": len(lines) + 1, **with_time, "previous": before.get("hash")}
            line["hash"] = _hash(line)
            torn = b"\n" if content and not content.endswith(b"\n") else b""  # a job was killed while it wrote
            with file.open("ab") as opened:
                opened.write(torn + json.dumps(line).encode() + b"\n")
                opened.flush()
                os.fsync(opened.fileno())
    except OSError as error:
        raise UserError(_unwritable(file, error)) from error
    return line


def check_writable(file: Path) -> None:
    """Raise UserError, before any work is done, if no look can be noted in this file."""
    try:
        existing = next(folder for folder in file.absolute().parents if folder.exists())
        if not existing.is_dir() or not os.access(file if file.exists() else existing, os.W_OK):
            raise PermissionError(13, "permission denied") if existing.is_dir() else NotADirectoryError()
        if regular(file).is_dir():
            raise IsADirectoryError(21, "it is a folder")
    except OSError as error:
        raise UserError(_unwritable(file, error)) from error


def _unwritable(file: Path, error: OSError) -> str:
    reason = str(error.strerror or error).lower()
    if isinstance(error, Timeout):
        reason = "another job has locked it"
    elif isinstance(error, FileExistsError | NotADirectoryError):
        reason = "a part of its path is a file"
    return (
        f"can't write {file}: {reason}. Each look at the test labels is noted there; mend it, or give another logs "
        "folder with paths.log_dir=…"
    )


def _locked(file: Path) -> FileLock:
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_name(f".{NAME}.lock"), timeout=PATIENCE)


def read(file: Path) -> tuple[list[Line], str]:
    """The lines that can be read, and the first sign that the file was changed; "" if there is none.

    Raises OSError or UserError where there is no such file.
    """
    lines, fault, previous = [], "", None
    for i, text in enumerate(read_text(file).splitlines(), 1):
        line = _parsed(text)
        if not line:
            fault = fault or f"line {i} can't be read"
        elif line.get("hash") != _hash(line):
            fault = fault or f"line {i} was edited"
        elif line.get("previous") != previous or line.get("number") != i:
            fault = fault or f"lines before line {i} were removed or changed"
        previous = line.get("hash")
        lines.append(line)
    return lines, fault


def _parsed(text: str) -> Line:
    with suppress(ValueError, RecursionError):
        line = json.loads(text)
        return line if isinstance(line, dict) else {}
    return {}


def _hash(line: Mapping[str, Any]) -> str:
    content = json.dumps({key: value for key, value in line.items() if key != "hash"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def is_unsealed(file: Path, run: str) -> bool:
    """Whether somebody gave a reason, in this ledger, to open the sealed test set for this run."""
    with suppress(OSError, UserError):
        return any(line.get("run") == run and line.get("unseal") for line in read(file)[0])
    return False


def looks(results: Iterable[tuple[Path, Mapping[str, Any]]], file: Path | None = None) -> list[str]:
    """For each test set, how often it was looked at and by how many settings: sentences to stand beside the numbers.

    results: the path and the content of each metrics.json or evaluation.json. file: the ledger, if not the one above
    them. Says so where the ledger is missing, was
    changed, or lacks some of these results. Results without test metrics count for nothing.
    """
    groups: dict[tuple[Path, str, Any], list[Mapping[str, Any]]] = {}
    for path, metrics in results:
        if any(key.startswith("test/") for key in metrics):
            key = file or ledger_of(Path(path)), str(metrics.get("data")), metrics.get("test_checksum")
            groups.setdefault(key, []).append(metrics)
    return [_sentence(*key, group) for key, group in groups.items()]


def _sentence(file: Path, data: str, checksum: Any, results: Sequence[Mapping[str, Any]]) -> str:
    of = f"Test set of {data}"
    noted = [str(metrics["test_look"]) for metrics in results if metrics.get("test_look")]
    if not noted:
        return f"{of}: these results are older than the ledger of looks at it."
    try:
        lines, fault = read(file)
    except (OSError, UserError):
        return f"{of}: how often it was looked at is unknown, as {NAME} is missing above these results."
    mine = [line for line in lines if line.get("test_checksum") == checksum and line.get("data") == data]
    settings = len({str(line.get("setting")) for line in mine})
    times = "once" if len(mine) == 1 else f"{len(mine):,} times"
    sentence = f"{of}: looked at {times} by {settings:,} setting{'s' * (settings != 1)}"
    missing = len(set(noted) - {str(line.get("hash")) for line in lines})
    faults = [fault] * bool(fault)
    faults += [f"{missing} of these results {'is' if missing == 1 else 'are'} not in it"] * bool(missing)
    if len(noted) < len(results):
        sentence += f", without {len(results) - len(noted)} of these results, which are older"
    if faults:
        sentence += f". Don't rely on this: {NAME} is not as it was written ({', '.join(faults)})"
    return f"{sentence}."
