"""Read and write the state of a sweep's jobs: files in their folders, which any launcher's processes can share.

A job with metrics.json is finished; with failure.json it failed; if its folder is locked it is running; else it was
interrupted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_json, write_json
from cifar_lightning.runs.folders import is_running

SWEEP = "multirun.yaml"  # Hydra writes it into a sweep's folder
FAILURE = "failure.json"
RUNNING = "is running"


@dataclass(frozen=True)
class Unfinished:
    """A job without a result, and why; `failed` if it ended with an error."""

    folder: Path
    reason: str
    failed: bool


def result(folder: Path) -> dict[str, Any] | None:
    """The content of metrics.json; None unless it holds the result of a run."""
    metrics = _read(folder / "metrics.json")
    return metrics if {"val/acc", "test/acc"} & metrics.keys() else None


def note_failure(folder: Path, reason: str) -> None:
    write_json(folder / FAILURE, {"reason": reason})


def forget_failure(folder: Path) -> None:
    (folder / FAILURE).unlink(missing_ok=True)


def unfinished(folder: Path) -> list[Unfinished]:
    """The jobs without a result in every sweep in and below this folder."""
    sweeps = sorted(path.parent for path in folder.rglob(SWEEP))
    jobs = [path.parent for sweep in sweeps for path in sorted(sweep.glob("*/.hydra"))]
    # A job may have failed in a folder where another finished, if the user's own names don't tell them apart.
    return [_describe(job) for job in jobs if result(job) is None or (job / FAILURE).exists()]


def _describe(job: Path) -> Unfinished:
    if is_running(job):
        return Unfinished(job, RUNNING, failed=False)
    if (job / FAILURE).exists():
        return Unfinished(job, str(_read(job / FAILURE).get("reason") or f"{FAILURE} gives no reason"), failed=True)
    return Unfinished(job, "was interrupted; the same command into this folder resumes it", failed=False)


def _read(file: Path) -> dict[str, Any]:
    """The JSON object in the file; empty if it is missing, broken or not an object."""
    try:
        content = read_json(file)
    except (OSError, ValueError, UserError):
        return {}
    return content if isinstance(content, dict) else {}
