"""What the report of a run or of a sweep says: the values that its template is filled with."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv, read_text, read_yaml
from cifar_lightning.reporting.html import Picture, picture, pictures, render
from cifar_lightning.reporting.summary import Run, Summary, spread, summarize
from cifar_lightning.reporting.tables import NOTHING, Row, class_rows, duration, number, percent, result_rows
from cifar_lightning.reporting.trials import trial_table

PLACED = ("learning_curves", "accuracy_per_class", "confusion_matrix", "mistakes")  # the others come together
GROUPS = ("data", "model", "activation", "augmentation", "optimizer", "scheduler", "trainer", "callbacks", "debug")
MISTAKES = 24  # rows of a table: as many as the figure has
TRIALS = "The best first; of a pruned trial, the accuracy after its last epoch"
SWEEP = "multirun.yaml"  # Hydra's record of a sweep
WITH_FIGURES = 20  # runs of a sweep whose figures are shown: 0.3 MB each


def usable(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose files can be understood, and of the others a line each."""
    kept, problems = [], []
    for run in runs:
        try:
            run_facts(run)
        except (AttributeError, KeyError, OSError, TypeError, ValueError, UserError) as error:
            what = str(error).strip().partition("\n")[0]
            problems.append(f"{run.path}: can't be shown ({type(error).__name__}: {what})")
        else:
            kept.append(run)
    return kept, problems


def run_page(run: Run) -> str:
    """The report of one run."""
    facts, found = run_facts(run), pictures(run.path.parent / "figures")
    others = [shown for name, shown in found.items() if name not in PLACED]
    headings = {
        "result": "Result",
        "classes": "Classes" if facts["classes"] else "",
        "mistakes": "Mistakes" if facts["mistakes"] or "mistakes" in found else "",
        "more": "More figures" if others else "",
        "made": "How it was made",
        "config": "Configuration",
    }
    figures = {name: found.get(name) for name in PLACED}
    more = {"figures": figures, "others": others, "sections": _present(headings), "folder": run.path.parent.resolve()}
    return render("run.html", facts | more)


def run_facts(run: Run) -> dict[str, Any]:
    """All that a run's files say, but for the figures."""
    metrics, folder = run.metrics, run.path.parent
    seed = f"seed {metrics['seed']}" if metrics.get("seed") is not None else None
    return {
        "title": summarize([run]).names[0],
        "subtitle": ", ".join(str(detail) for detail in (seed, metrics.get("data"), _day(run)) if detail),
        "tiles": run_tiles(metrics),
        "result": result_rows(metrics),
        "classes": class_rows(metrics) if metrics.get("test/acc_per_class") else [],
        "history": history_rows(folder / "history.csv"),
        "mistakes": mistake_rows(folder / "predictions.csv"),
        "command": metrics.get("command") or NOTHING,
        "made": made(metrics),
        "settings": settings(run),
        "config": _text(folder / "config.yaml"),
    }


def run_tiles(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    published = metrics.get("published_test_acc")
    tiles = [
        _tile("test accuracy", percent(metrics.get("test/acc")), f"published: {published} %" if published else ""),
        _tile("validation accuracy", percent(metrics.get("val/acc"))),
        _tile("parameters", number(metrics.get("parameters"))),
        _tile("training time", duration(metrics.get("train_seconds")), f"{number(metrics.get('epochs'))} epochs"),
    ]
    return [tile for tile in tiles if tile["value"] != NOTHING]


def made(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else it takes to make it again, as far as the run says."""
    data, checksum = metrics.get("data"), metrics.get("data_checksum")
    processes = metrics.get("processes") or 1
    facts = {
        "Seed": metrics.get("seed"),
        "Hardware": metrics.get("hardware"),
        "Device": f"{metrics.get('accelerator')}{f', {processes} processes' if processes > 1 else ''}",
        "Precision": metrics.get("precision"),
        "Data": f"{data}, checksum {checksum}" if checksum else data,
        "Training images": number(metrics["train_images"]) if metrics.get("train_images") else None,
        "Versions": ", ".join(f"{name} {version}" for name, version in (metrics.get("versions") or {}).items()),
        "Tags": ", ".join(map(str, metrics.get("tags") or [])),
        "Finished": str(metrics.get("date") or "").replace("T", " ").replace("+00:00", " UTC"),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "", "None")]


def settings(run: Run) -> list[Row]:
    """The choice of each group, then what else was overridden."""
    file = run.path.with_name("config.yaml")
    config = read_yaml(file) if os.path.lexists(file) else {}
    choices = (config if isinstance(config, dict) else {}).get("choices") or {}
    chosen = {name: str(choices[name]) for name in ("experiment", *GROUPS) if choices.get(name) is not None}
    typed = {name: value or "removed" for name, value in run.overrides.items() if name not in chosen}
    return [{"setting": name, "value": value} for name, value in (chosen | typed).items()]


def history_rows(path: Path) -> list[Row]:
    rows = []
    for line in read_csv(path) if path.exists() else []:
        row = {"epoch": number(line["epoch"])}
        for part, words in (("train", "training"), ("val", "validation")):
            row[f"{words} loss"] = number(line[f"{part}/loss"], 4)
            row[f"{words} accuracy"] = percent(line[f"{part}/acc"])
        rows.append(row | {"learning rate": f"{line['lr']:.3g}", "time": duration(line["seconds"])})
    return rows


def mistake_rows(path: Path) -> list[Row]:
    lines = read_csv(path) if path.exists() else []
    wrong = sorted((line for line in lines if line["label"] != line["prediction"]), key=lambda x: -x["confidence"])
    return [
        {
            "image": str(line["index"]),
            "true class": str(line["label"]),
            "prediction": str(line["prediction"]),
            "confidence": percent(line["confidence"], 1),
        }
        for line in wrong[:MISTAKES]
    ]


def sweep_page(folder: Path, runs: Sequence[Run], missing: Sequence[Row]) -> str:
    """The report of the runs below a folder; `missing` are rows for what has no result."""
    summary, trials = summarize(runs), trial_rows(folder)
    members = [(name, run) for name, group in zip(summary.names, summary.groups, strict=True) for run in group]
    shown = [run_of_sweep(name, run) for name, run in members[:WITH_FIGURES]]
    headings = {
        "summary": "Trials" if trials else "Summary",
        "missing": "Without a result" if missing else "",
        "figures": "Comparison",
        "runs": "Runs",
        "made": "How they were made",
    }
    days = sorted({_day(run) for run in runs} - {""})
    made_of = [
        ("Seeds", _all(run.metrics.get("seed") for run in runs)),
        ("Hardware", _all(run.metrics.get("hardware") for run in runs)),
        ("Data checksum", _all(run.metrics.get("data_checksum") for run in runs)),
    ]
    values = {
        "title": f"Search {folder.resolve().name}" if trials else sweep_title(folder, summary),
        "subtitle": " to ".join(dict.fromkeys(days[:1] + days[-1:])),
        "tiles": sweep_tiles(summary, runs, missing, trials),
        "summary": trials or summary.rows,
        "caption": TRIALS if trials else "One row for each setting, the seeds folded into mean ± sample deviation",
        "notes": summary.notes,
        "missing": missing,
        "figures": list(pictures(folder / "figures").values()) if trials else comparison(summary),
        "table_of_runs": _without_empty([run_row(name, run, folder) for name, run in members]),
        "runs": shown,
        "left_out": len(members) - len(shown),
        "command": sweep_command(folder),
        "best": "".join(_text(path) for path in sorted((folder / "experiment").glob("best_*.yaml"))) if trials else "",
        "made": made_of,
    }
    return render("sweep.html", values | {"sections": _present(headings), "folder": folder.resolve()})


def sweep_title(folder: Path, summary: Summary) -> str:
    """What was swept, or of a folder of other runs its name."""
    runs = [run for group in summary.groups for run in group]
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    swept = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    if not (folder / SWEEP).is_file():
        return f"Runs in {folder.resolve().name}"
    return f"Sweep over {' and '.join([', '.join(swept[:-1]), swept[-1]][len(swept) < 2 :])}" if swept else "Sweep"


def trial_rows(folder: Path) -> list[Row]:
    """The trials of a search's folder; nothing where it is none."""
    try:
        return trial_table(read_csv(folder / "trials.csv"))
    except (OSError, KeyError, TypeError, ValueError):
        return []


def sweep_tiles(
    summary: Summary, runs: Sequence[Run], missing: Sequence[Row], trials: Sequence[Row]
) -> list[dict[str, Any]]:
    best = summary.groups[0]
    ranked = all(run.metrics.get("val/acc") is not None for group in summary.groups for run in group)
    tiles = []
    if ranked and len(summary.rows) > 1:  # test figures choose nothing
        tiles.append(_tile("best by validation", summary.names[0], words=True))
        for words, key in (("its validation accuracy", "val/acc"), ("its test accuracy", "test/acc")):
            values = [100 * run.metrics[key] for run in best if run.metrics.get(key) is not None]
            count = f"mean ± deviation over {len(values)} runs" if len(values) > 1 else "one run"
            tiles.append(_tile(words, f"{spread(values)} %" if values else NOTHING, count))
    if trials:
        states = Counter(trial["state"] for trial in trials)
        tiles.append(
            _tile("trials", str(len(trials)), ", ".join(f"{count} {state}" for state, count in states.items()))
        )
    else:
        tiles.append(_tile("runs", str(len(runs)), f"{len(summary.rows)} setting{'s' * (len(summary.rows) != 1)}"))
    tiles.append(_tile("training time", duration(sum(run.metrics.get("train_seconds") or 0 for run in runs)), "in all"))
    if missing:
        tiles.append(_tile("without a result", str(len(missing))))
    return [tile for tile in tiles if tile["value"] != NOTHING]


def run_of_sweep(name: str, run: Run) -> dict[str, Any]:
    found = pictures(run.path.parent / "figures")
    figures = {name: found.get(name) for name in PLACED}
    return run_facts(run) | {"name": f"{name}, seed {run.metrics.get('seed')}", "figures": figures}


def run_row(name: str, run: Run, folder: Path) -> Row:
    metrics = run.metrics
    return {
        "run": name,
        "seed": str(metrics.get("seed", NOTHING)),
        "validation": percent(metrics.get("val/acc")),
        "test": percent(metrics.get("test/acc")),
        "training time": duration(metrics.get("train_seconds")),
        "folder": str(run.path.parent.relative_to(folder)) if run.path.is_relative_to(folder) else str(run.path.parent),
    }


def comparison(summary: Summary) -> list[Picture]:
    """The figures of a summary, drawn anew: the sweep may have grown since its own were."""
    from cifar_lightning.reporting.comparison import entries  # NumPy and matplotlib take their time
    from cifar_lightning.reporting.comparison_figures import comparison_figures
    from cifar_lightning.reporting.figures import DPI, styled

    shown = []
    for name, figure in comparison_figures(entries(summary)).items():
        buffer = io.BytesIO()
        styled(figure.savefig)(buffer, format="png", dpi=DPI)
        shown.append(picture(name, buffer.getvalue()))
    return shown


def sweep_command(folder: Path) -> str:
    """What was typed, as Hydra noted it in the sweep's folder; nothing where it is no sweep."""
    try:
        noted = read_yaml(folder / SWEEP)
        return " ".join(["python -m cifar_lightning -m", *noted["hydra"]["overrides"]["task"]])
    except (OSError, TypeError, KeyError, ValueError, UserError):
        return ""


def _tile(name: str, value: str, note: str = "", *, words: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "note": note, "words": words}


def _present(headings: Mapping[str, str]) -> dict[str, str]:
    return {name: heading for name, heading in headings.items() if heading}


def _without_empty(rows: Sequence[Row]) -> list[Row]:
    """Without columns in which no row has a value."""
    return [{name: text for name, text in row.items() if any(r[name] != NOTHING for r in rows)} for row in rows]


def _all(values: Iterable[Any]) -> str:
    return "; ".join(str(value) for value in dict.fromkeys(values) if value is not None) or "unknown"


def _day(run: Run) -> str:
    return str(run.metrics.get("date") or "")[:10]


def _text(path: Path) -> str:
    return read_text(path) if os.path.lexists(path) else ""
