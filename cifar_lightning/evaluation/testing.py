"""Test a checkpoint as its training run did, on any split, optionally with test-time augmentation."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from cifar_lightning.callbacks.progress import ProgressBar
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.device_loader import EvaluationLoader
from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.files import read_json
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.precision import Precision, resolve_precision
from cifar_lightning.training.tta import TTA


def chosen_split(datamodule: ImageDataModule, name: str, class_names: Sequence[str]) -> Split:
    """The split `name`, to be tested with a network of these classes.

    Raises UserError if the run had no such split, or for data with other classes.
    """
    if len(datamodule.class_names) != len(class_names):
        raise UserError(
            f"{datamodule.name} has {len(datamodule.class_names)} classes, the checkpoint {len(class_names)}"
        )
    split: Split = getattr(datamodule, name)
    if not len(split):
        raise UserError("the checkpoint's run has no validation split (data.val_size=0)")
    return split


def picked(datamodule: ImageDataModule, name: str, numbers: Sequence[int], class_names: Sequence[str]) -> Split:
    """Images of a split by index. Raises UserError for an index out of range."""
    split = chosen_split(datamodule, name, class_names)
    beyond = [number for number in numbers if not 0 <= number < len(split)]
    if beyond:
        raise UserError(f"index={name}:{beyond[0]}: there are {len(split):,} images, numbered from 0")
    rows = torch.tensor(numbers)
    return Split(split.images[rows], split.labels[rows])


def kept_images(split: Split, name: str, exclude: Path | None) -> Tensor:
    """The indices of the test images that are left without those in the file `exclude`, as `data audit` writes it.

    name: of the data set. Raises UserError for a file with anything else, or that leaves no image.
    """
    if exclude is None:
        return torch.arange(len(split))
    try:
        content = read_json(exclude)
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        raise UserError(f"exclude={exclude}: {reason}") from error
    form = '{"data": "' + name + '", "split": "test", "indices": [0, 1]}'
    content = content if isinstance(content, dict) else {}
    indices = content.get("indices")
    if (content.get("data"), content.get("split")) != (name, "test") or not isinstance(indices, list):
        raise UserError(f"exclude={exclude} is not a list of test images of {name}, such as {form}")
    bad = [index for index in indices if type(index) is not int or not 0 <= index < len(split)]
    if bad:
        raise UserError(
            f"exclude={exclude}: {str(bad[0])[:40]} is not one of the {len(split):,} images, numbered from 0"
        )
    kept = torch.ones(len(split), dtype=torch.bool)
    kept[indices] = False
    if not kept.any():
        raise UserError(f"exclude={exclude} leaves no image to test")
    return kept.nonzero()[:, 0]


def build_evaluator(config: dict[str, Any], accelerator: str = "auto", precision: str | None = None) -> L.Trainer:
    """A Trainer for a test on one device, by default in the precision of the checkpoint's run.

    Raises UserError for a device or precision that this machine does not have.
    """
    precision = precision or config.get("trainer", {}).get("precision", "32-true")
    if precision not in get_args(Precision):
        raise UserError(f"precision={precision}: choose from {', '.join(dict.fromkeys(map(str, get_args(Precision))))}")
    on_terminal = sys.stdout.isatty()
    try:
        return L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=resolve_precision(precision, accelerator),  # type: ignore[arg-type]
            logger=False,
            callbacks=[ProgressBar()] if on_terminal else None,
            enable_progress_bar=on_terminal,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"{first_line(error)} (precision=32-true works everywhere)") from error


def test_logits(trainer: L.Trainer, classifier: ImageClassifier, split: Split, batch_size: int, tta: TTA) -> Tensor:
    """The logits [N, K] of a split's images in order, as in a run's test stage."""
    torch.set_flush_denormal(True)  # as in training
    classifier.test_tta = tta
    loader = EvaluationLoader(split, batch_size=batch_size, device=trainer.strategy.root_device)
    trainer.test(classifier, dataloaders=loader, verbose=False)
    return classifier.test_logits


def members_logits(
    trainer: L.Trainer,
    classifiers: Sequence[ImageClassifier],
    split: Split,
    batch_size: int,
    tta: TTA,
    precision: str | None = None,
) -> Tensor:
    """The logits [M, N, K] of each of these classifiers, as `test_logits`, each in the precision of its own run.

    trainer: that of the first classifier; the others are tested on its device. precision: one for all, instead.
    """
    accelerator, found = trainer.strategy.root_device.type, []
    trainers = {_saved_precision(classifiers[0]): trainer}
    for classifier in classifiers:
        saved = _saved_precision(classifier)
        if saved not in trainers:
            trainers[saved] = build_evaluator(classifier.config, accelerator, precision)
        found.append(test_logits(trainers[saved], classifier, split, batch_size, tta))
    return torch.stack(found)


def _saved_precision(classifier: ImageClassifier) -> str:
    return str(classifier.config.get("trainer", {}).get("precision"))
