"""The Python API: train, sweep, summarize, compare, load and predict in a few typed functions."""

import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lightning.checkpoints.load import load_classifier
from cifar_lightning.checkpoints.members import ensemble_of, load_members
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import overridden, plain, quoted, run_folder, spelled_out
from cifar_lightning.console import say
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.errors import Interrupted, UserError
from cifar_lightning.evaluation.inference import Classifier, Predictions
from cifar_lightning.evaluation.marks import marked
from cifar_lightning.evaluation.same_images import answered, truth_of
from cifar_lightning.evaluation.sides import Found, Part, find_sides, of_runs, told_apart
from cifar_lightning.evaluation.verdicts import Comparison, compared
from cifar_lightning.reporting.files import read_csv
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.reporting.summary import Summary
from cifar_lightning.reporting.summary import summarize as summarized
from cifar_lightning.runs.build import build_datamodule, build_module
from cifar_lightning.runs.folders import (
    check_owner,
    checkpoint_file,
    checkpoint_files,
    checkpoint_to_resume,
    folder_of,
    owned,
    remove_unstarted,
)
from cifar_lightning.runs.processes import processes_to_start
from cifar_lightning.runs.train import run
from cifar_lightning.sweeps import state
from cifar_lightning.sweeps.folders import folder_for, job_name
from cifar_lightning.sweeps.job import run_once
from cifar_lightning.sweeps.overrides import jobs_of
from cifar_lightning.sweeps.overrides import swept as swept_keys
from cifar_lightning.sweeps.summary import write_summary
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.precision import resolve_accelerator

__all__ = [
    "Classifier", "Comparison", "Predictions", "Result", "Summary", "compare", "compose", "load", "load_data",
    "summarize", "sweep", "train", "untrained",
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, what its metrics.json holds, and a row of history.csv for each epoch."""

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)


def compose(overrides: Sequence[str] = (), *, output_dir: str | Path | None = None) -> DictConfig:
    """The config for these overrides, checked as on the command line.

    `output_dir`: the run's folder; by default `train` creates a new one where the command does. The config is read-only
    and contains its overrides, which a run records: other changes would be missing from every table.
    Raises UserError with the key and its valid values, or the nearest existing name.
    """
    config = compose_checked(spelled_out(overrides))
    hydra = config.hydra
    for override in hydra.overrides.hydra:
        if not override.startswith("hydra.searchpath="):
            raise UserError(f"{override}: Hydra does not run this job; choose the folder with compose(…, output_dir=…)")
    with open_dict(config):
        del config["hydra"]
        config.choices = plain(hydra.runtime.choices)
        config.overrides = plain(hydra.overrides.task)
        if output_dir is not None:
            config.paths.output_dir = str(Path(output_dir).expanduser().absolute())
        elif OmegaConf.is_interpolation(config.paths, "output_dir"):  # resolved within Hydra's jobs only
            config.paths.output_dir = None
    OmegaConf.set_readonly(config, True)
    return config


def train(config: DictConfig, *, quiet: bool = False, callbacks: Sequence[Callback] = ()) -> Result:
    """Fit, test the best checkpoint and write the run's folder, as the command does; `load(result.folder)` loads it.

    config: from `compose`; it is not changed, and may be used again. Prints a line per epoch unless `quiet`.
    `callbacks`: Lightning callbacks in addition to the config's.
    Raises UserError for errors that the user can fix, KeyboardInterrupt after an interruption.
    """
    return _train(config, quiet, callbacks)


def _train(config: DictConfig, quiet: bool, callbacks: Sequence[Callback] = (), *, claimed: bool = False) -> Result:
    """`train`; claimed: this process already owns the run's folder, as for a job of a sweep."""
    if "overrides" not in config:
        raise UserError("train takes a config from cifar_lightning.api.compose")
    if processes_to_start(config.trainer):
        raise UserError("from Python a run has one process: use the command line for several")
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        overrides = config.pop("overrides")
    if quiet and config.callbacks.get("model_summary"):
        config.callbacks.model_summary = None
    folder = _choose_folder(config, overrides, claimed)
    with nullcontext() if claimed else owned(folder), _logging(folder, quiet):
        try:
            metrics = run(config, list(overrides), show=False, callbacks=callbacks)
        except UserError:
            if not claimed:
                remove_unstarted(folder)
            raise
        except Interrupted as ending:  # so that a notebook continues
            raise KeyboardInterrupt(str(ending)) from None
    return _result(folder, metrics)


def sweep(overrides: Sequence[str], *, output_dir: str | Path | None = None) -> list[Result]:
    """Train every combination of comma-separated values, one run after another.

    `sweep(["model=cnn2", "activation=relu,tanh", "seed=1,2,3"])` is six runs in one folder with a summary, as the
    command's `-m` writes them. All are checked before the first one starts. Prints a line per run.

    `output_dir`: the folder of an earlier sweep to resume, from here or from the command: finished runs are skipped,
    interrupted ones are resumed.
    Raises UserError with the reasons of failed runs, after the others have ended; KeyboardInterrupt after an
    interruption.
    """
    jobs = jobs_of(overrides)
    config = [compose(job) for job in jobs][0]  # noqa: RUF015 (all are checked)
    if output_dir is None:
        output_dir = _new_folder(f"{config.paths.log_dir}/{config.task_name}/multiruns", overrides)
    folder, swept = Path(output_dir).expanduser().absolute(), swept_keys(overrides)
    results, failed = [], []
    for i, job in enumerate(jobs):
        words = " ".join(override for override in job if override not in overrides)
        try:
            results.append(_finished_or_trained(job, folder, swept))
        except UserError as error:
            failed.append(f"{words}: {error}")
            say(f"{i + 1}/{len(jobs)}  {words}  failed: {error}")
            continue
        metrics = results[-1].metrics
        known = [split for split in ("val", "test") if metrics.get(f"{split}/acc") is not None]
        shown = f"  {known[0]} {metrics[f'{known[0]}/acc']:.2%}" if known else ""
        say(f"{i + 1}/{len(jobs)}  {words}{shown}")
    if results:
        summary = summarize(results)
        write_summary(summary, summary.markdown(), folder)
    if failed:
        raise UserError("\n".join([*failed, f"sweep(…, output_dir={str(folder)!r}) runs the missing ones"]))
    return results


def summarize(results: Sequence[Result], by: Sequence[str] = ()) -> Summary:
    """One row per setting, with mean ± standard deviation over seeds: `summarize(results).markdown()` is the table.

    by: keys to group by, such as "activation", instead of everything that was overridden.
    Raises UserError for a key that no run has.
    """
    return marked(summarized(_runs(results), by))


def compare(
    *sides: str | Path | Result | Sequence[Result], split: Part = "test", data: ImageDataModule | None = None
) -> Comparison:
    """Which side is better: `compare("logs/a", "logs/b").verdicts` says it, `.differences` holds the figures.

    A side is a run, or several of one setting with other seeds, or a path as the command `compare` takes it. Of one
    side alone the settings are compared: `compare(results)`.
    data: from `load_data`, for files of predictions that come without the true classes.
    Raises UserError for sides that can't be compared, because their images differ, for instance.
    """
    found: list[Found] = []
    for side in sides:
        if isinstance(side, str | Path):
            found += find_sides([str(side)], split, alone=len(sides) == 1)
        else:
            found += of_runs(_runs([side] if isinstance(side, Result) else side), split, alone=len(sides) == 1)
    return compared(answered(told_apart(found), truth_of(data, split) if data else None, split), split)


def load_data(config: DictConfig | Mapping[str, Any]) -> ImageDataModule:
    """The data of a config: `train`, `val` and `test` with `images` uint8 [N, C, H, W] and `labels` int64 [N].

    config: from `compose`, or a classifier's `config`. `augmented_examples(n)` and `train_dataloader()` apply its
    augmentation. Downloads the data if it is missing.
    Raises UserError if the data is damaged or can't be downloaded.
    """
    datamodule = build_datamodule(config if isinstance(config, DictConfig) else OmegaConf.create(dict(config)))
    datamodule.setup("fit")
    return datamodule


def load(
    path: str | Path | list[Any] | tuple[Any, ...], *, accelerator: str = "auto", trusted: Sequence[str] = ()
) -> Classifier:
    """The classifier in a checkpoint file, ready for `.predict(images)`.

    `load("best.ckpt").predict(["cat.jpg", "dog.png"]).names` might be `["cat", "dog"]`. A run's folder stands for its
    best checkpoint. A list of files or folders is an ensemble: its probabilities are the mean of theirs, and its
    logits the logarithm of these. Only networks of this package and torch's activations are built, and classes of the
    modules in `trusted`, such as "my_models".
    Raises UserError for a file that is not a checkpoint, or is damaged or manipulated, and for members of other classes
    or images.
    """
    if not isinstance(path, list | tuple):
        file = checkpoint_file(str(path)) if Path(path).is_dir() else path
        return Classifier(load_classifier(file, trusted), resolve_accelerator(accelerator))
    if not path:
        raise UserError("load([]): name a checkpoint or more")
    members = load_members(checkpoint_files([str(one) for one in path]), trusted)
    return Classifier(ensemble_of(members), resolve_accelerator(accelerator))


def untrained(config: DictConfig, data: ImageDataModule) -> Classifier:
    """The classifier before training: with the initial weights of the config's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = build_module(config, data)
    if not isinstance(module, ImageClassifier):
        raise UserError(f"untrained needs an ImageClassifier, got {config.module._target_}")
    return Classifier(module)


def _runs(results: Sequence[Result]) -> list[Run]:
    return [Run(result.folder / "metrics.json", result.metrics) for result in results]


def _result(folder: Path, metrics: dict[str, Any]) -> Result:
    history = folder / "history.csv"
    return Result(folder, metrics, read_csv(history) if history.exists() else [])


def _finished_or_trained(job: Sequence[str], sweep: Path, swept: Sequence[str]) -> Result:
    """The run of a sweep's job: finished before, resumed, or new."""
    config = compose(job, output_dir=sweep)
    folder = sweep / folder_for(sweep, job_name(job, swept), config)
    with _explained():
        folder.mkdir(parents=True, exist_ok=True)

    def trained(last: Path | None) -> dict[str, Any]:
        more = [f"ckpt_path={quoted(last)}"] if last else []
        return _train(compose([*job, *more], output_dir=folder), quiet=True, claimed=True).metrics

    try:
        metrics = run_once(folder, config, trained)
    except UserError as error:
        state.note_failure(folder, str(error))
        raise
    if metrics is None:
        raise UserError(f"{folder}: another process is running it")
    return _result(folder, metrics)


def _choose_folder(config: DictConfig, overrides: Sequence[str], claimed: bool) -> Path:
    """Create this run's folder and set it in the config; a resumed run keeps its own."""
    folder, checkpoint = config.paths.output_dir and Path(config.paths.output_dir), None
    if config.ckpt_path is not None:
        checkpoint = checkpoint_to_resume(config)
        config.ckpt_path = str(checkpoint)
        folder = folder or (folder_of(checkpoint) if config.train else None)
    if folder is not None and not claimed:
        check_owner(folder, checkpoint if config.train else None)
    folder = folder or _new_folder(f"{config.paths.log_dir}/{config.task_name}/runs", overrides)
    with _explained():
        folder.mkdir(parents=True, exist_ok=True)
    config.paths.output_dir = str(folder.absolute())
    return folder.absolute()


def _new_folder(parent: str, overrides: Sequence[str]) -> Path:
    with _explained():
        return Path(run_folder(parent, overridden(overrides)))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"can't create the folder {error.filename}: {error.strerror}; choose output_dir") from error


@contextmanager
def _logging(folder: Path, quiet: bool) -> Iterator[None]:
    """Log to the run's file and, unless logging is set up already, to standard output, as the command does."""
    root = logging.getLogger()
    level = root.level
    file = logging.FileHandler(folder / "cifar_lightning.log", encoding="utf-8", delay=True, errors="backslashreplace")
    file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    handlers: list[logging.Handler] = [file] if quiet or root.handlers else [file, logging.StreamHandler(sys.stdout)]
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
