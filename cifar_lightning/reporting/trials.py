"""Format the rows of a search's trials.csv as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lightning.reporting.tables import NOTHING, Row, duration, percent

FIELDS = ("number", "state", "value", "epochs", "seconds", "reason")  # every other column is a parameter
STATES = ("complete", "pruned", "running", "failed")  # as they are ranked


def trial_table(trials: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Table rows, the best first; pruned, running and failed trials come after completed ones."""
    ranked = sorted(trials, key=lambda row: (STATES.index(row["state"]), -(row["value"] or 0), row["number"]))
    parameters = [name for name in dict.fromkeys(name for row in trials for name in row) if name not in FIELDS]
    reasons = any(row["reason"] for row in ranked)
    return [
        {
            "trial": str(row["number"]),
            "state": row["state"],
            "validation": percent(row["value"]),
            "epochs": str(row["epochs"] or NOTHING),
            "time": duration(row["seconds"]),
            **{name: _short(row.get(name)) for name in parameters},
            **({"reason": row["reason"] or ""} if reasons else {}),
        }
        for row in ranked
    ]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
