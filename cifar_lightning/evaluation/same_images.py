"""Check that sides were tested on the same images, and set their answers against the true classes."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.answers import Answers, read_answers
from cifar_lightning.evaluation.comparison import Side
from cifar_lightning.evaluation.sides import Found, Part
from cifar_lightning.reporting.run_files import Run

OF_SPLIT = ("val_size", "split_seed", "folds", "fold")
# Keys of the data that change the training images, and so the checksum, but not the test images.
OF_TRAINING = ("train_size", "imbalance", "label_noise", "labels_file")


@dataclass(frozen=True)
class Truth:
    """The true class (text [N]) of each image, by its index (int64 [N]), and all classes, if known."""

    index: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str] | None


@dataclass(frozen=True)
class Answered:
    """A side with its answers: the predicted classes, text [networks, N], and what is true of all sides."""

    side: Side
    found: Found
    predictions: np.ndarray
    truth: Truth


def answered(found: Sequence[Found], truth: Truth | None, split: Part) -> list[Answered]:
    """The sides with their answers, checked to be about the same images.

    truth: if not that of the runs themselves. Raises UserError for sides that can't be compared.
    """
    check_runs([(one.name, run) for one in found for run in one.runs], split)
    names = truth.class_names if truth else _class_names(found)
    read = {m.answers: read_answers(m.answers, names) for one in found for m in one.members}
    truth = truth or _own_truth(list(read.values()), names)
    for answers in read.values():
        _check_images(answers, truth)
    sides = []
    for one in found:
        predictions = np.stack([read[member.answers].predictions for member in one.members])
        sides.append(Answered(Side(one.name, predictions == truth.labels, seeds_of(one)), one, predictions, truth))
    return sides


def truth_of(data: Any, split: Part) -> Truth:
    """The labels of a split of an ImageDataModule."""
    labels = getattr(data, split).labels.numpy()
    return Truth(np.arange(len(labels)), np.array(data.class_names)[labels], data.class_names)


def seeds_of(found: Found) -> list[Hashable]:
    """The seed of each network (with its fold), by which sides are paired; a file's own path if it has none."""
    seeds: list[Hashable] = []
    for member in found.members:
        seed = member.run.metrics.get("seed") if member.run else None
        own = (seed, member.run.value("data.fold")) if member.run and type(seed) is int else str(member.answers)
        seeds.append(own)
    return seeds if len(set(seeds)) == len(seeds) else [str(member.answers) for member in found.members]


def check_runs(runs: Sequence[tuple[str, Run]], split: Part) -> None:
    """Raise UserError for runs whose data, classes or validation splits differ."""
    if not runs:
        return
    first_name, first = runs[0]
    for name, run in runs[1:]:
        apart = _differing(first, run, split)
        if apart:
            where = f"{first_name} and {name}" if name != first_name else f"runs of {name}"
            raise UserError(f"{where} can't be compared: {apart} ({first.path.parent}, {run.path.parent})")


def _differing(first: Run, second: Run, split: Part) -> str:
    one, other = first.metrics, second.metrics
    if one.get("data") != other.get("data"):
        return f"one was tested on {one.get('data')}, the other on {other.get('data')}"
    if split == "val":
        for key in OF_SPLIT:
            values = [_data(run).get(key) for run in (first, second)]
            if values[0] != values[1]:
                return f"their validation splits differ: data.{key} is {values[0]} and {values[1]}"
    varied = any(_data(run).get(key) for run in (first, second) for key in OF_TRAINING)
    if one.get("data_checksum") != other.get("data_checksum") and not varied:
        return f"their data have the checksums {one.get('data_checksum')} and {other.get('data_checksum')}"
    classes = [_classes(run) for run in (first, second)]
    if all(classes) and classes[0] != classes[1]:
        return f"their classes differ, {len(classes[0])} and {len(classes[1])}"
    return ""


def _data(run: Run) -> Mapping[str, Any]:
    data = run.config.get("data")
    return data if isinstance(data, dict) else {}


def _classes(run: Run) -> list[str]:
    for split in ("test", "val"):
        if isinstance(each := run.metrics.get(f"{split}/acc_per_class"), dict):
            return list(each)
    return []


def _class_names(found: Sequence[Found]) -> list[str] | None:
    return next((names for one in found for run in one.runs if (names := _classes(run))), None)


def _own_truth(read: Sequence[Answers], names: Sequence[str] | None) -> Truth:
    known = next((answers for answers in read if answers.labels is not None), None)
    if known is None or known.labels is None:
        raise UserError("none of the files holds the true classes: say which data it is, such as data=cifar10")
    return Truth(known.index, known.labels, names)


def _check_images(answers: Answers, truth: Truth) -> None:
    """Raise UserError unless the answers are for the same images."""
    if len(answers.index) != len(truth.index):
        raise UserError(f"{answers.source} has {len(answers.index):,} images where {len(truth.index):,} are compared")
    if not np.array_equal(answers.index, truth.index):
        i = int(np.flatnonzero(answers.index != truth.index)[0])
        raise UserError(f"{answers.source} has image {answers.index[i]} in the place of {truth.index[i]}")
    if answers.labels is not None and not np.array_equal(answers.labels, truth.labels):
        i = int(np.flatnonzero(answers.labels != truth.labels)[0])
        raise UserError(
            f"{answers.source} is about other images: number {answers.index[i]} is of class {answers.labels[i]} there, "
            f"of {truth.labels[i]} elsewhere"
        )
