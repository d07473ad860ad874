"""What a sweep's folder says of its jobs. It outlives processes, and every launcher's workers can read and write it.

A job is a folder. With metrics.json it is finished; with failure.json it failed, and that says why; while its lock is
held it is running; else it was cut off.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_json, write_json

SWEEP = "multirun.yaml"  # Hydra writes it into a sweep's folder
FAILURE = "failure.json"
RUNNING = "is running"


@dataclass(frozen=True)
class Unfinished:
    """A job without a result: its folder, the reason, and whether it failed by itself."""

    folder: Path
    reason: str
    failed: bool


def result(folder: Path) -> dict[str, Any] | None:
    """The job's metrics, if it is finished. What is no result of a run, is none of the job's either."""
    metrics = _read(folder / "metrics.json")
    return metrics if {"val/acc", "test/acc"} & metrics.keys() else None


def note_failure(folder: Path, reason: str) -> None:
    write_json(folder / FAILURE, {"reason": reason})


def forget_failure(folder: Path) -> None:
    (folder / FAILURE).unlink(missing_ok=True)


def unfinished(folder: Path) -> list[Unfinished]:
    """The jobs without a result in every sweep in and below this folder."""
    sweeps = sorted(path.parent for path in folder.rglob(SWEEP))
    jobs = (path.parent for sweep in sweeps for path in sorted(sweep.glob("*/.hydra")))
    # One may have failed in a folder where another is finished, if a person's own names don't tell them apart.
    return [_describe(job) for job in jobs if result(job) is None or (job / FAILURE).exists()]


def _describe(job: Path) -> Unfinished:
    from cifar_lightning.runs.folders import (
        is_running,  # imports Hydra, which a report of finished runs need not wait for
    )

    if is_running(job):
        return Unfinished(job, RUNNING, failed=False)
    if (job / FAILURE).exists():
        reason = _read(job / FAILURE).get("reason")
        return Unfinished(job, str(reason or f"{FAILURE} doesn't say why"), failed=True)
    return Unfinished(job, "was cut off; the same command into the same folder goes on with it", failed=False)


def _read(file: Path) -> dict[str, Any]:
    """What the JSON file holds; nothing where it is missing, broken or of something else."""
    try:
        content = read_json(file)
    except (OSError, ValueError, UserError):
        return {}
    return content if isinstance(content, dict) else {}
