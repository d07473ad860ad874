"""Write a run's results: metrics.json, predictions.csv and figures/ in its folder, and the same in TensorBoard."""

import datetime
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
from cifar_lightning.config.monitors import NOISE_METRICS
from cifar_lightning.console import say
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.reporting import figures, tables, tensorboard
from cifar_lightning.reporting.files import read_json, write_json, write_predictions
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.runs.folders import checkpoint_file, command, folder_of, shown
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.metrics import accuracy_by_frequency, test_metrics

GROUPS = ("data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "experiment")
# Config keys and fields of metrics.json that TensorBoard's HPARAMS tab shows for every run; by default it shows five of
# the latter.
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
    """The content of metrics.json: metrics of the tested checkpoint, cost of training, and provenance."""
    test: dict[str, Any] = {}
    if not isinstance(module, ImageClassifier):  # a module of the user's own: whatever it logged
        test = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    elif len(module.test_logits):
        test = test_metrics(module.test_logits, module.test_labels, datamodule.class_names)
        test |= accuracy_by_frequency(test, datamodule.train.labels)
        if config.test_tta != "none":
            without = test_metrics(module.plain_test_logits, module.test_labels, datamodule.class_names)
            test |= {f"{key}_without_tta": without[key] for key in ("test/acc", "test/loss")}
            test |= {"test_tta": config.test_tta}
    choices, name = config.choices, Path(checkpoint).stem if checkpoint else None
    differing = differences(config, overrides)
    return {
        **validation,
        **test,
        **{key: value for key, value in (history.rows or [{}])[-1].items() if key in NOISE_METRICS},
        **({"teachers": teachers(config, module)} if getattr(module, "teacher", None) else {}),
        "operations": operations(module, datamodule),
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
        "command": command(*overrides),
        "overrides": differing,
        "seed": config.seed,
        "published_test_acc": published(config, differing, name),
        "partial": is_partial(config),
        **provenance(trainer, datamodule),
    }


def operations(module: L.LightningModule, datamodule: ImageDataModule) -> int | None:
    """Floating-point operations of the run; None for a module of the user's own and for sharded weights."""
    if not isinstance(module, ImageClassifier) or any(hasattr(p, "device_mesh") for p in module.parameters()):
        return None
    taught_by = [classifier.network for classifier in module.teacher.classifiers] if module.teacher else []
    trained = getattr(module, "trained_parameters", ())
    return module.operations.total(module.network, taught_by, datamodule.image_shape[0], trained)


def teachers(config: DictConfig, module: Any) -> list[dict[str, Any]]:
    """Path, size and accuracy (as their own runs recorded it) of the networks that were learnt from."""
    given = plain(config.teacher.ckpt_path)
    found = []
    for path, classifier in zip(given if isinstance(given, list) else [given], module.teacher.classifiers, strict=True):
        folder = folder_of(checkpoint_file(str(path)))
        record = folder / "metrics.json" if folder else None
        metrics = read_json(record) if record and record.is_file() else {}
        size = sum(parameter.numel() for parameter in classifier.parameters())
        accuracies = {key: metrics.get(key) for key in ("val/acc", "test/acc")}
        found.append({"ckpt_path": str(path), "parameters": size, **accuracies})
    return found


def published(config: DictConfig, differing: Sequence[str], checkpoint: str | None) -> float | None:
    """The recipe's published accuracy in %; None where the run changes the recipe."""
    if config.choices.get("experiment") and settings_of(differing):
        return None
    accuracy = plain(config.published_test_acc)
    return accuracy.get(checkpoint) if isinstance(accuracy, dict) else accuracy


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Those of the overrides that change what is trained."""
    return Run(Path("metrics.json"), {"overrides": overrides}).settings


def provenance(trainer: L.Trainer, datamodule: ImageDataModule) -> dict[str, Any]:
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
    """Figures of a test: confusion matrix, accuracy per class, most confident mistakes."""
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
    """Write the run's files and its results in TensorBoard. metrics.json is last: with it the run is finished."""
    if isinstance(module, ImageClassifier) and len(module.test_logits):
        write_test(folder, module.test_logits, module.test_labels, module.class_names)
    save_figures(folder, drawn)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            results = {name: figure for name, figure in drawn.items() if name != "samples"}  # logged at the start
            tensorboard.add_figures(logger.experiment, results, trainer.global_step)
            columns = hparams(plain(config), metrics["overrides"])
            values = {name: metrics[name] for name in HPARAM_METRICS if metrics.get(name) is not None}
            # The step lets a run that resumes from here replace them.
            tensorboard.add_hparams(logger.experiment, columns, values, trainer.global_step)
            logger.experiment.close()  # Lightning closed it before the test, and writing reopened it with a thread
    write_json(folder / "metrics.json", metrics)


def write_test(
    folder: Path, logits: Tensor, labels: Tensor, names: Sequence[str], indices: Sequence[int] | None = None
) -> None:
    """Write predictions.csv; indices: those of the images, if some were left out."""
    confidences, predictions = logits.softmax(1).max(1)
    columns = (labels.tolist(), predictions.tolist(), confidences.tolist())
    write_predictions(folder / "predictions.csv", indices or range(len(labels)), *columns, names)


def save_figures(folder: Path, drawn: Mapping[str, Figure]) -> None:
    for name, figure in drawn.items():
        figures.save_figure(figure, folder / "figures" / f"{name}.png")


def hparams(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The columns of TensorBoard's HPARAMS tab: group choices, HPARAMS, and overrides that change what is trained.

    So a sweep has a column for each swept key. An override without a single value in the config is shown as typed.
    """
    choices, typed = config["choices"], settings_of(overrides)
    columns = {group: choices[group] for group in GROUPS if choices.get(group) is not None}
    for key in [*HPARAMS, *typed]:
        value = choices[key] if key in choices else _value(config, key)
        if value is None and key in typed:
            value = typed[key] or "removed"
        if value is not None:
            columns[key] = value
    return columns


def _value(config: Any, key: str) -> Any:
    """The value at a dotted key; None if it is missing or a mapping."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return None if isinstance(config, Mapping) else config


def show(metrics: Mapping[str, Any], folder: Path, notes: Sequence[str] = ()) -> None:
    """Print the result tables, notes on them, the files written, and commands to run next."""
    console, run = get_console(), str(shown(folder))
    console.print()
    console.print(tables.rich_table(tables.result_rows(metrics), "Result"))
    if "test/acc_per_class" in metrics:
        console.print(tables.rich_table(tables.class_rows(metrics), "Accuracy per class (test)"))
    for note in notes:
        say(note)
    say(f"in {run}:")
    say(f"  {', '.join(sorted(path.name for path in folder.iterdir() if path.suffix in ('.json', '.csv')))}, figures/")
    say(f"next:\n  {command('report', run)}")
    if any(folder.glob("checkpoints/*.ckpt")):
        split = "test" if "test/acc" in metrics else "train" if metrics.get("val/acc") is None else "val"
        say(f"  {command('predict', f'ckpt_path={run}', f'index={split}:0,1,2')}")
    words = [word for word in shlex.split(metrics["command"])[3:] if not word.startswith(("seed=", "hydra.run.dir="))]
    if not any(word.startswith(("ckpt_path=", "train=")) for word in words):
        another = f"seed={metrics['seed'] + 1}"
        say(f"  {command(*words, another)}")
    if any(folder.glob("events.out.tfevents.*")):
        logs = folder.parents[2] if len(shown(folder).parents) > 3 else folder
        say(f"  {shlex.join(['tensorboard', '--logdir', str(shown(logs)), '--host', 'localhost'])}")
        say("    losses and accuracies: http://localhost:6006/#custom_scalars")
