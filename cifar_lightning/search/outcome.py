"""Print and write the results of a search: a line per trial, trials.csv, figures, the best config as an experiment."""

import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots
from rich.console import Console

from cifar_lightning import api
from cifar_lightning.config.compose import compose
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.figures import save_figure
from cifar_lightning.reporting.files import write_csv, write_text
from cifar_lightning.reporting.tables import duration, markdown_table, percent, rich_table
from cifar_lightning.reporting.trial_figures import parameter_figure
from cifar_lightning.reporting.trials import trial_table
from cifar_lightning.runs.folders import command, shown
from cifar_lightning.search.definition import Search
from cifar_lightning.search.space import overrides, text
from cifar_lightning.search.study import counted, difference, point_of, trained

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
GROUPS = ("data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "callbacks")
SHOWN = 10  # trials in the table on the terminal


def trial_rows(search: Search, study: optuna.Study) -> list[dict[str, Any]]:
    """A row for each trial that counts, in the order of their start."""
    return [trial_row(search, trial) for trial in counted(study.get_trials(deepcopy=False))]


def trial_row(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    last = max(trial.intermediate_values, default=None)
    point = point_of(trial, search.space)
    return {
        "number": trial.number,
        "state": STATES.get(trial.state, "running"),
        "value": trial.value if trial.value is not None or last is None else trial.intermediate_values[last],
        "epochs": trial.user_attrs.get("epochs"),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "reason": trial.user_attrs.get("reason", ""),
        **{
            p.key: text(v) if p.type == "categorical" else v
            for p in search.space
            if (v := point.get(p.key)) is not None
        },
    }


def announce_start(search: Search, study: optuna.Study) -> None:
    done = len(counted(study.get_trials(deepcopy=False)))
    earlier = f" ({done} of them from earlier)" if done else ""
    say(
        f"study {search.study_name}: {search.n_trials} trials{earlier}, pruning: {search.pruner}, "
        f"in {shown(search.folder)}"
    )


def announce_trial(search: Search, study: optuna.Study, trial: FrozenTrial) -> None:
    """Print the result of a trial in one line."""
    if not counted([trial]):
        return
    row = trial_row(search, trial)
    if row["state"] == "failed":
        result = f"failed: {row['reason']}"
    elif row["state"] == "pruned":
        result = f"pruned after epoch {row['epochs']} at {percent(row['value'])}"
    else:
        best = study.best_trial
        best_so_far = "the best so far" if best.number == trial.number else f"best {percent(best.value)}"
        result = f"{percent(row['value'])} ({best_so_far}) in {duration(row['seconds'])}"
    say(f"trial {trial.number}: {result}  {' '.join(overrides(point_of(trial, search.space)))}")


def study_figures(search: Search, study: optuna.Study) -> dict[str, Figure]:
    """Optuna's figures of the study, and one of the parameters that, unlike Optuna's, includes pruned trials."""
    pyplot.switch_backend("agg")  # Optuna uses pyplot, which would look for a display
    drawn = {}
    for name, plot, axis, label in (
        ("history", plots.plot_optimization_history, "y", "validation accuracy"),
        ("importance", plots.plot_param_importances, "x", "share of the importance"),
    ):
        with pyplot.rc_context(), warnings.catch_warnings(action="ignore"):
            try:
                axes: Any = plot(study)
            except (RuntimeError, ValueError):  # a single completed trial has no importances
                continue
            axes.set(**{f"{axis}label": label})
            axes.figure.set_layout_engine("constrained")
            drawn[name] = axes.figure
            pyplot.close(axes.figure)
    logarithmic = {p.key: bool(p.arguments.get("log")) for p in search.space}
    return drawn | {"parameters": parameter_figure(trial_rows(search, study), logarithmic)}


def write_outcome(search: Search, study: optuna.Study) -> Path | None:
    """Write tables, figures and the experiment file into the study's folder; returns the path of the last."""
    rows = trial_rows(search, study)
    write_csv(search.folder / "trials.csv", rows)
    write_text(search.folder / "trials.md", markdown_table(trial_table(rows)) if rows else "No trial yet.\n")
    if not any(row["state"] == "complete" for row in rows):
        return None
    for name, figure in study_figures(search, study).items():
        save_figure(figure, search.folder / "figures" / f"{name}.png")
    path = search.folder / "experiment" / f"best_{search.study_name}.yaml"  # a name that conf/experiment does not have
    best = study.best_trial
    comments = [
        f"The best (trial {best.number}) of {len(rows)} trials of the search {search.study_name}, without test data.",
        f"  {train_command(path)}",
        f"Validation accuracy in the search: {percent(best.value)} (optimistic: one run, the best of many).",
    ]
    config = api.compose([*search.overrides, *overrides(point_of(best, search.space))])
    write_text(path, experiment(config, comments))
    return path


def experiment(config: DictConfig, comments: Sequence[str]) -> str:
    """The text of an experiment file that composes to `config`, but for where it runs and whether it tests.

    config: from `api.compose`.
    """
    chosen = {group: config.choices[group] for group in GROUPS if config.choices.get(group) is not None}
    if chosen.get("callbacks") in ("default", "none"):  # with none, there would be no checkpoint of the best epoch
        del chosen["callbacks"]
    changed = difference(trained(compose([f"{group}={name}" for group, name in chosen.items()])), trained(config))
    if "callbacks" not in chosen:
        changed.pop("callbacks", None)
    lines = ["# @package _global_", *(f"# {comment}" for comment in comments), "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in chosen.items()]
    return "\n".join(lines) + "\n" + (OmegaConf.to_yaml(OmegaConf.create(changed)) if changed else "")


def train_command(path: Path) -> str:
    return command(f"--config-dir={shown(path.parent.parent)}", f"experiment={path.stem}")


def show_outcome(search: Search, study: optuna.Study, path: Path | None) -> None:
    """Print the best trials, the files written and the command that trains the best config.

    Raises UserError if no trial was completed.
    """
    rows = trial_rows(search, study)
    if path is None:
        reasons = [row["reason"] for row in rows if row["reason"]]
        because = f"; the last one failed: {reasons[-1]}" if reasons else ""
        raise UserError(f"no trial was completed{because}")
    counts = Counter(row["state"] for row in rows)
    title = f"Study {search.study_name}: {', '.join(f'{count} {state}' for state, count in counts.items())}"
    # Piped output has no width, and tables squeezed into 80 columns are hard to read.
    console = Console(width=max(Console().width, 120) if sys.stdout.isatty() else 250, highlight=False)
    console.print(rich_table(trial_table(rows)[:SHOWN], title))
    for figure in sorted((search.folder / "figures").glob("*.png")):
        say(f"figure      {shown(figure)}")
    say(f"all trials  {shown(search.folder / 'trials.csv')}")
    say(f"best config {shown(path)}")
    say(f"train it    {train_command(path)}")
