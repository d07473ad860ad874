"""Compare what a run recorded with what came out when it was trained again, file by file."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cifar_lightning.callbacks.trace import weights_checksum
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.config.keys import decides
from cifar_lightning.reporting.files import read_csv
from cifar_lightning.reporting.run_files import Run

UNRECORDED = "not recorded: the run is older than this record"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One thing that was compared: whether it is the same (None: could not be compared), and in words."""

    what: str
    same: bool | None
    words: str


def compared(run: Run, again: Run, end: int | None, tolerance: float) -> list[Finding]:
    """What the run's files say, beside those of its repetition: up to the step `end`, or of the whole.

    tolerance: how far losses (relatively) and accuracies may part; 0 for not at all. Weights and predictions need not
    be the same above 0. Initial weights and data always must.
    """
    old, new = run.metrics, again.metrics
    findings = [
        *_settings(old, new),
        _equal("data checksum", old.get("data_checksum"), new.get("data_checksum")),
        _equal("initial weights", old.get("initial_weights"), new.get("initial_weights")),
        _losses(run, again, end, tolerance),
        _history(run, again, end, tolerance),
        *_tested_weights(run),
    ]
    if end is None:
        findings += [
            _metrics(old, new, tolerance),
            *(_loosely(finding, tolerance) for finding in (*_weights(run, again), _predictions(run, again))),
        ]
    return [*findings, *_own_accuracy(run)]


def repeatable(run: Run) -> tuple[int, str] | None:
    """The last step up to which the run can be repeated, and why no further; None for the whole run."""
    starts = run.metrics.get("starts") or []
    for start in starts:
        if start[1:] != starts[0][1:]:
            return start[0], "it was resumed with another length, and so another schedule"
    if (run.config.get("trainer") or {}).get("max_time") and run.history:
        return run.history[-1]["step"], "trainer.max_time ended it by the clock"
    return None


def _equal(what: str, old: Any, new: Any) -> Finding:
    if old is None or new is None:
        return Finding(what, None, UNRECORDED if old is None else "the run's own data have none")
    return Finding(what, old == new, "the same" if old == new else f"{old} recorded, {new} now")


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether config.yaml, which was trained, is what metrics.json says was trained."""
    package = "cifar_lightning"  # of another version, with other defaults
    if (old.get("versions") or {}).get(package) != new["versions"][package]:
        return
    before, now = (_changed(metrics) for metrics in (old, new))
    parts = [
        f"{key}: {before.get(key, 'default')} in metrics.json, {now.get(key, 'default')} in config.yaml"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    yield Finding("settings", not parts, "; ".join(parts) or "the same")


def _changed(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The overrides that decide the result, without those that a repetition sets itself."""
    parts = (str(override).partition("=") for override in metrics["overrides"])
    kept = {name: value for name, _, value in parts if decides(name).what == "result"}
    for name in ("trainer.precision", "trainer.max_time", "trainer.max_epochs", "trainer.max_steps", "test"):
        kept.pop(name, None)
    return kept | {"seed": str(metrics.get("seed"))}


def _losses(run: Run, again: Run, end: int | None, tolerance: float) -> Finding:
    old, new = (_rows(one, "losses.csv", end) for one in (run, again))
    if old is None:
        return Finding("loss of each logged step", None, UNRECORDED)
    first = next(iter(run.metrics.get("starts") or []), [0])[0]  # above 0 for one that an older version began
    new = [row for row in new or [] if row["step"] > first]
    return _rows_agree("loss of each logged step", old, new, tolerance, "step")


def _history(run: Run, again: Run, end: int | None, tolerance: float) -> Finding:
    old, new = (_rows(one, "history.csv", end) for one in (run, again))
    if old is None:
        return Finding("history", None, "there is no history.csv")
    if end is not None and new and new[-1]["step"] not in [row.get("step") for row in old]:
        new = new[:-1]  # the last epoch was cut off
    if end is not None and not new and not old:
        return Finding("history", None, f"no epoch ends within {end:,} steps")
    return _rows_agree("history", old, new or [], tolerance, "epoch")


def _rows(run: Run, name: str, end: int | None) -> Rows | None:
    file = run.path.with_name(name)
    if not file.is_file():
        return None
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_csv(file)]
    return [row for row in rows if end is None or (isinstance(row.get("step"), int) and row["step"] <= end)]


def _rows_agree(what: str, old: Rows, new: Rows, tolerance: float, key: str) -> Finding:
    """Whether all rows agree; in words the first that doesn't."""
    for before, now in zip(old, new, strict=False):
        for name in dict.fromkeys([*before, *now]):
            if not _close(before.get(name), now.get(name), tolerance):
                where = f"from {key} {now.get(key)} on: {name} {before.get(name)} recorded, {now.get(name)} now"
                return Finding(what, False, where + _by(before.get(name), now.get(name)))
    if len(old) != len(new):
        return Finding(what, False, f"{len(old)} rows recorded, {len(new)} now")
    return Finding(what, True, f"the same ({len(new)} {'epochs' if key == 'epoch' else 'steps'})")


def _close(old: Any, new: Any, tolerance: float) -> bool:
    if old == new:
        return True
    numbers = all(isinstance(value, int | float) for value in (old, new))
    return numbers and tolerance > 0 and math.isclose(old, new, rel_tol=tolerance, abs_tol=tolerance)


def _by(old: Any, new: Any) -> str:
    if not all(isinstance(value, int | float) for value in (old, new)) or not old:
        return ""
    return f" ({abs(new - old) / abs(old):.2g} of it)"


def _metrics(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float) -> Finding:
    keys = [key for key in old if key.startswith(("val/", "test/", "train/"))]
    keys += ["parameters", "epochs", "train_images", "checkpoint", "checkpoint_epoch"]
    flat = [dict(_leaves({k: one.get(k) for k in keys})) for one in (old, new)]
    parts = [
        f"{key}: {flat[0].get(key)} recorded, {flat[1].get(key)} now"
        for key in dict.fromkeys([*flat[0], *flat[1]])
        if not _close(flat[0].get(key), flat[1].get(key), tolerance)
    ]
    more = f", and {len(parts) - 3} more" if len(parts) > 3 else ""
    return Finding("metrics.json", not parts, "; ".join(parts[:3]) + more or f"the same ({len(flat[0])} figures)")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from _leaves(item, f"{key}.{name}".lstrip("."))
    else:
        yield key, value


def _tested_weights(run: Run) -> Iterator[Finding]:
    """Whether the checkpoint in the folder still is the one that was tested."""
    file, recorded = run.path.parent / "checkpoints" / f"{run.checkpoint}.ckpt", run.metrics.get("weights")
    if file.is_file() and recorded is not None and any(key.startswith("test/") for key in run.metrics):
        same = weights_checksum(read_checkpoint(file)["state_dict"]) == recorded
        yield Finding(file.name, same, "is the one that was tested" if same else "is not the one that was tested")


def _weights(run: Run, again: Run) -> Iterator[Finding]:
    yield _equal("weights, tested", run.metrics.get("weights"), again.metrics.get("weights"))
    for name in ("best.ckpt", "last.ckpt"):
        files = [one.path.parent / "checkpoints" / name for one in (run, again)]
        if not files[1].is_file():
            continue
        if not files[0].is_file():
            yield Finding(f"weights, {name}", None, "the file is no longer there")
            continue
        old, new = (read_checkpoint(file)["state_dict"] for file in files)
        if old.keys() != new.keys() or any(old[key].shape != new[key].shape for key in old):
            yield Finding(f"weights, {name}", False, "those of another network")
            continue
        furthest = max(((old[key].double() - new[key].double()).abs().max().item(), key) for key in old)
        same = all(torch.equal(old[key], new[key]) for key in old)
        words = "the same" if same else f"parted by up to {furthest[0]:.2g} (in {furthest[1]})"
        yield Finding(f"weights, {name}", same, words)


def _predictions(run: Run, again: Run) -> Finding:
    files = [one.path.with_name("predictions.csv") for one in (run, again)]
    if missing := [file for file in files if not file.is_file()]:
        where = "recorded" if missing[0] == files[0] else "made now"
        return Finding("predictions", None, f"none were {where}")
    old, new = map(read_csv, files)
    if old == new:
        return Finding("predictions", True, f"the same ({len(new):,} images)")
    others = sum(a.get("prediction") != b.get("prediction") for a, b in zip(old, new, strict=False))
    others += abs(len(old) - len(new))
    return Finding("predictions", False, f"another class for {others:,} of {len(old):,} images, or another confidence")


def _own_accuracy(run: Run) -> Iterator[Finding]:
    """Whether the recorded accuracy is that of the recorded predictions."""
    file, accuracy = run.path.with_name("predictions.csv"), run.metrics.get("test/acc")
    if file.is_file() and accuracy is not None and (rows := read_csv(file)):
        counted = sum(row.get("label") == row.get("prediction") for row in rows) / len(rows)
        same = math.isclose(counted, accuracy, abs_tol=1e-9)
        words = "is that of predictions.csv" if same else f"{accuracy} recorded, {counted} in predictions.csv"
        yield Finding("test accuracy", same, words)


def _loosely(finding: Finding, tolerance: float) -> Finding:
    return Finding(finding.what, None, finding.words) if tolerance > 0 and finding.same is False else finding


def explanations(old: Mapping[str, Any], new: Mapping[str, Any], deterministic: bool) -> list[str]:
    """What differs between where the run was made and here, and may explain that it parts."""
    before, now = (
        {
            "hardware": re.sub(r"^\d+ threads? of ", "", str(metrics.get("hardware"))),
            "threads": (re.match(r"\d+(?= threads? of )", str(metrics.get("hardware"))) or [None])[0],
            **{key: metrics.get(key) for key in ("accelerator", "precision")},
            **(metrics.get("versions") or {}),
        }
        for metrics in (old, new)
    )
    found = [f"{key}: {value} then, {now.get(key)} now" for key, value in before.items() if value != now.get(key)]
    if old.get("accelerator") == "cuda" and not deterministic:
        found.append("a GPU adds up in any order, unless trainer.deterministic=true")
    return found
