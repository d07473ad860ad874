"""The project from Python: what the commands use, in a few typed functions."""

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
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import overridden, plain, quoted, run_folder
from cifar_lightning.console import say
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.errors import Interrupted, UserError
from cifar_lightning.evaluation.inference import Classifier, Predictions
from cifar_lightning.reporting.files import read_csv
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.reporting.summary import Summary, summarize
from cifar_lightning.runs.build import build_datamodule, build_module
from cifar_lightning.runs.folders import (
    check_owner,
    checkpoint_file,
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
    "Classifier", "Predictions", "Result", "Summary", "compare", "compose", "load", "load_data", "sweep", "train",
    "untrained",
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, what its metrics.json holds, and a row of history.csv for each epoch."""

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)


def compose(overrides: Sequence[str] = (), *, output_dir: str | Path | None = None) -> DictConfig:
    """The config that these overrides select, as on the command line, and checked in the same way.

    `output_dir` will be the folder of the run. Without one `paths.output_dir` is null, and `train` makes a new folder
    where the command makes it. The config is read-only and remembers its overrides, which a run keeps in its record:
    what was changed past them would be missing in every table.
    Raises UserError, naming the key and what it admits or the nearest name that exists.
    """
    config = compose_checked(list(overrides))
    hydra = config.hydra
    for override in hydra.overrides.hydra:
        if not override.startswith("hydra.searchpath="):
            raise UserError(f"{override}: no job of Hydra's runs here; compose(…, output_dir=…) chooses the folder")
    with open_dict(config):
        del config["hydra"]
        config.choices = plain(hydra.runtime.choices)
        config.overrides = plain(hydra.overrides.task)
        if output_dir is not None:
            config.paths.output_dir = str(Path(output_dir).expanduser().absolute())
        elif OmegaConf.is_interpolation(config.paths, "output_dir"):  # to a job of Hydra's
            config.paths.output_dir = None
    OmegaConf.set_readonly(config, True)
    return config


def train(config: DictConfig, *, quiet: bool = False, callbacks: Sequence[Callback] = ()) -> Result:
    """Fit, test the best checkpoint and write the run's folder, as the command does; `load(result.folder)` uses it.

    config: from `compose`, and not used up: a second training gets a folder of its own unless `output_dir` was given.
    Prints a line an epoch if not `quiet`. `callbacks` are Lightning's, beside those of the config.
    Raises UserError for whatever the person can mend, KeyboardInterrupt where it is interrupted.
    """
    return _train(config, quiet, callbacks)


def _train(config: DictConfig, quiet: bool, callbacks: Sequence[Callback] = (), *, claimed: bool = False) -> Result:
    """`train`; claimed: the run's folder is this process's already, as that of a sweep's job."""
    if "overrides" not in config:
        raise UserError("train takes a config that cifar_lightning.api.compose has made")
    if processes_to_start(config.trainer):
        raise UserError("from Python a run has one process: use the command for several")
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
        except Interrupted as ending:  # a notebook goes on after it
            raise KeyboardInterrupt(str(ending)) from None
    return _result(folder, metrics)


def sweep(overrides: Sequence[str], *, output_dir: str | Path | None = None) -> list[Result]:
    """Train every combination of values that are separated by commas, one run after another.

    `sweep(["model=cnn2", "activation=relu,tanh", "seed=1,2,3"])` is six runs, in one folder with their summary, as the
    command's `-m` leaves them. All are checked before the first begins. Prints a line a run.

    `output_dir`: a folder of a sweep, from here or from the command, to go on with: what is finished is not run again,
    what was cut off goes on from its last checkpoint.
    Raises UserError with the reasons where runs failed, when the others have ended; KeyboardInterrupt where it is
    interrupted.
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
        summary = compare(results)
        write_summary(summary, summary.markdown(), folder)
    if failed:
        raise UserError("\n".join([*failed, f"sweep(…, output_dir={str(folder)!r}) runs what is missing"]))
    return results


def compare(results: Sequence[Result], by: Sequence[str] = ()) -> Summary:
    """One row for each setting, seeds folded into mean ± deviation: `compare(results).markdown()` is the table.

    by: keys such as "activation" to group by, in place of everything that was overridden.
    Raises UserError for a key that no run knows.
    """
    return summarize([Run(result.folder / "metrics.json", result.metrics) for result in results], by)


def load_data(config: DictConfig | Mapping[str, Any]) -> ImageDataModule:
    """The data of a config: `train`, `val` and `test` with `images` uint8 [N, 3, 32, 32] and `labels` int64 [N].

    config: from `compose`, or a classifier's `config`. Its augmentation shows in `augmented_examples(n)` and in
    `train_dataloader()`. Downloads CIFAR-10 where it is missing.
    Raises UserError where it can't be had or is damaged.
    """
    datamodule = build_datamodule(config if isinstance(config, DictConfig) else OmegaConf.create(dict(config)))
    datamodule.setup("fit")
    return datamodule


def load(path: str | Path, *, accelerator: str = "auto", trusted: Sequence[str] = ()) -> Classifier:
    """The classifier in a checkpoint file, which is all that is needed; ready for `.predict(images)`.

    `load("best.ckpt").predict(["cat.jpg", "dog.png"]).names` is `["cat", "dog"]`, with luck. A run's folder stands for
    its best checkpoint.

    Of what the file names only networks of this package and torch's activations are built, and classes of the modules
    that are `trusted` by name, such as "my_models".
    Raises UserError for a file that is no checkpoint, or is damaged or doctored.
    """
    file = checkpoint_file(str(path)) if Path(path).is_dir() else path
    return Classifier(load_classifier(file, trusted), resolve_accelerator(accelerator))


def untrained(config: DictConfig, data: ImageDataModule) -> Classifier:
    """The classifier as the training of this config begins with it: the weights of its seed, nothing learnt yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = build_module(config, data)
    if not isinstance(module, ImageClassifier):
        raise UserError(f"{config.module._target_} is no ImageClassifier, which is what gives answers here")
    return Classifier(module)


def _result(folder: Path, metrics: dict[str, Any]) -> Result:
    history = folder / "history.csv"
    return Result(folder, metrics, read_csv(history) if history.exists() else [])


def _finished_or_trained(job: Sequence[str], sweep: Path, swept: Sequence[str]) -> Result:
    """The run of a sweep's job: the one that is there, gone on with where it was cut off, or a new one."""
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
    """Make this run's folder and write it into the config; a run that goes on does so in its own."""
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
        raise UserError(f"can't make the folder {error.filename}: {error.strerror}; choose output_dir") from error


@contextmanager
def _logging(folder: Path, quiet: bool) -> Iterator[None]:
    """Messages go to the run's log and, where nobody has set up logging, to standard output, as in the command."""
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
