"""What a finished run leaves in its folder: metrics.json, predictions.csv, figures/, and the same in TensorBoard."""

import datetime
import logging
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich import get_console
from torch import Tensor

import cifar_lightning
from cifar_lightning.callbacks.dashboard import most_likely
from cifar_lightning.callbacks.history import History
from cifar_lightning.config.compose import plain
from cifar_lightning.config.identity import differences, is_partial
from cifar_lightning.console import say
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.reporting import figures, tables, tensorboard
from cifar_lightning.reporting.files import write_json, write_predictions
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.metrics import test_metrics

log = logging.getLogger(__name__)

GROUPS = ("data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "experiment")
# Columns of TensorBoard's HPARAMS tab beside the groups and what was overridden: config keys, and fields of
# metrics.json. It shows five of the latter without a click, the first by their names.
HPARAMS = ("seed", "data.batch_size", "optimizer.lr", "optimizer.weight_decay", "trainer.max_epochs")
HPARAM_METRICS = ("val/acc", "val/loss", "test/acc", "test/loss", "train_seconds")


def collect(
    config: DictConfig,
    overrides: Sequence[str],
    trainer: L.Trainer,
    module: L.LightningModule,
    datamodule: ImageDataModule,
    history: History,
    validation: Mapping[str, float | None],
    checkpoint: str | None,
) -> dict[str, Any]:
    """What metrics.json holds: the figures of the tested checkpoint, what they cost and where they come from."""
    test: dict[str, Any] = {}
    if not isinstance(module, ImageClassifier):  # the user's own: what it has logged
        test = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    elif len(module.test_logits):
        test = test_metrics(module.test_logits, module.test_labels, datamodule.class_names)
        if config.test_tta != "none":
            plain_figures = test_metrics(module.plain_test_logits, module.test_labels, datamodule.class_names)
            test |= {"test_tta": config.test_tta}
            test |= {f"{key}_without_tta": plain_figures[key] for key in ("test/acc", "test/loss")}
    choices, name = config.choices, Path(checkpoint).stem if checkpoint else None
    differing = differences(config, overrides)
    return {
        **validation,
        **test,
        "parameters": sum(p.numel() for p in getattr(module, "network", module).parameters()),
        "epochs": len(history.rows),
        "events": getattr(module, "events", []),
        "train_seconds": round(history.seconds, 2),
        "images_per_second": history.images_per_second,
        "train_images": len(datamodule.train),
        "checkpoint": name,
        "experiment": choices.get("experiment"),
        "model": choices.get("model"),
        "task_name": config.task_name,
        "tags": plain(config.tags),
        "command": shlex.join(["python", "-m", "cifar_lightning", *overrides]),
        "overrides": differing,
        "seed": config.seed,
        "published_test_acc": published(config, differing, name),
        "partial": is_partial(config),
        **circumstances(trainer, datamodule),
    }


def published(config: DictConfig, differing: Sequence[str], checkpoint: str | None) -> float | None:
    """The recipe's published accuracy in %, where this run is the recipe and nothing else."""
    settings = Run(Path("metrics.json"), {"overrides": differing}).settings
    if config.choices.get("experiment") and settings:
        return None
    figure = plain(config.published_test_acc)
    return figure.get(checkpoint) if isinstance(figure, dict) else figure  # one for each checkpoint


def circumstances(trainer: L.Trainer, datamodule: ImageDataModule) -> dict[str, Any]:
    """When, on what and with what the figures came about."""
    return {
        "precision": str(trainer.precision),
        "accelerator": trainer.strategy.root_device.type,
        "processes": trainer.world_size,
        "data": datamodule.name,
        "data_checksum": datamodule.checksum,
        "hardware": hardware(trainer),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def hardware(trainer: L.Trainer) -> str:
    """The device that trained, in words."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads() * trainer.world_size
    return f"{threads} thread{'s' * (threads > 1)} of {processor_name()}"


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core")}
    return {"python": platform.python_version(), **packages, "cifar_lightning": cifar_lightning.__version__}


def draw(
    metrics: Mapping[str, Any], history: History, module: L.LightningModule, datamodule: ImageDataModule
) -> dict[str, Figure]:
    """The run's figures by name."""
    images, labels = datamodule.augmented_examples(40)
    names = datamodule.class_names
    drawn = {"samples": figures.image_grid(images.numpy(), [names[label] for label in most_likely(labels).tolist()])}
    if history.rows:
        drawn["learning_curves"] = figures.learning_curves(history.rows, metrics)
    if isinstance(module, ImageClassifier) and len(module.test_logits):
        drawn |= draw_test(metrics, datamodule.test.images, module.test_logits, module.test_labels, names)
    return drawn


def draw_test(
    metrics: Mapping[str, Any], images: Tensor, logits: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, Figure]:
    """The figures of tested images: what was confused with what, and where the network was surest and wrong."""
    confidences, predictions = logits.softmax(1).max(1)
    return {
        "confusion_matrix": figures.confusion_matrix(metrics["test/confusion_matrix"], names),
        "accuracy_per_class": figures.accuracy_per_class(metrics["test/acc_per_class"]),
        "mistakes": figures.mistakes(
            images[: len(labels)].numpy(), labels.numpy(), predictions.numpy(), confidences.numpy(), names
        ),
    }


def write(
    folder: Path,
    metrics: Mapping[str, Any],
    drawn: Mapping[str, Figure],
    config: DictConfig,
    module: L.LightningModule,
    trainer: L.Trainer,
) -> None:
    """Write the run's files and TensorBoard's last pages; metrics.json comes last: with it a run is finished."""
    if isinstance(module, ImageClassifier) and len(module.test_logits):
        write_test(folder, module.test_logits, module.test_labels, module.class_names)
    save_figures(folder, drawn)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            shown = {name: figure for name, figure in drawn.items() if name != "samples"}  # there since the start
            tensorboard.add_figures(logger.experiment, shown, trainer.global_step)
            columns = hparams(plain(config), metrics["overrides"])
            # At this step, so that a run that goes on from here replaces them.
            tensorboard.add_hparams(logger.experiment, columns, hparam_metrics(metrics), trainer.global_step)
            logger.experiment.close()  # Lightning has done so before the test; this opened it again, with a thread
    write_json(folder / "metrics.json", metrics)


def write_test(folder: Path, logits: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    confidences, predictions = logits.softmax(1).max(1)
    columns = (labels.tolist(), predictions.tolist(), confidences.tolist())
    write_predictions(folder / "predictions.csv", range(len(labels)), *columns, names)


def save_figures(folder: Path, drawn: Mapping[str, Figure]) -> None:
    for name, figure in drawn.items():
        figures.save_figure(figure, folder / "figures" / f"{name}.png")


def hparams(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The columns of TensorBoard's HPARAMS tab: the choice of each group, HPARAMS, and every override that matters.

    So a sweep has a column for each key that was swept. An override that is no single value in the config is shown as
    it was typed.
    """
    choices = config["choices"]
    columns = {group: choices[group] for group in GROUPS if choices.get(group) is not None}
    typed = Run(Path("metrics.json"), {"overrides": overrides}).settings
    for key in [*HPARAMS, *typed]:
        value = choices[key] if key in choices else _value(config, key)
        if value is _MISSING and key in typed:
            value = typed[key] or "removed"
        if value is not _MISSING:
            columns[key] = value
    return columns


_MISSING = object()


def _value(config: Any, key: str) -> Any:
    """The value at a dotted key, or _MISSING where there is none or a whole section."""
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return _MISSING
        config = config[name]
    return _MISSING if isinstance(config, Mapping) else config


def hparam_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: metrics[name] for name in HPARAM_METRICS if metrics.get(name) is not None}


def show(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print the result's tables, where its figures lie, and how to open the dashboard."""
    console = get_console()
    console.print()
    console.print(tables.result_table(metrics))
    if "test/acc_per_class" in metrics:
        console.print(tables.class_table(metrics))
    here = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    say(f"in {here}:")
    say(f"  {', '.join(sorted(path.name for path in folder.iterdir() if path.suffix in ('.json', '.csv')))}, figures/")
    say("next:")
    for line in next_commands(metrics, folder, here):
        say(f"  {line}")
        if line.startswith("tensorboard"):  # whose first page has the single points of a test, too
            say("    losses and accuracies: http://localhost:6006/#custom_scalars")


def next_commands(metrics: Mapping[str, Any], folder: Path, here: Path) -> list[str]:
    """What can be typed after a run."""
    python, run = ["python", "-m"], str(here)
    lines = [[*python, "cifar_lightning", "report", run]]
    if any(folder.glob("checkpoints/*.ckpt")):
        lines.append([*python, "cifar_lightning", "predict", f"ckpt_path={run}", "index=test:0,1,2"])
    words = [word for word in shlex.split(metrics["command"])[3:] if not word.startswith(("seed=", "hydra.run.dir="))]
    if not any(word.startswith(("ckpt_path=", "train=")) for word in words):
        lines.append([*python, "cifar_lightning", *words, f"seed={metrics['seed'] + 1}"])
    if any(folder.glob("events.out.tfevents.*")):
        logs = here.parents[2] if len(here.parents) > 3 else here
        lines.append(["tensorboard", "--logdir", str(logs), "--host", "localhost"])
    return [shlex.join(line) for line in lines]
