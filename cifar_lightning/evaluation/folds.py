"""Predict every training image with the runs of a cross-validation that did not train on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_lightning.checkpoints.load import load_data
from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.testing import chosen_split

SHARED = ("name", "labels", "folds", "split_seed")  # keys of the data that decide who is in which fold


@dataclass(frozen=True)
class OutOfFold:
    """The official training set, with the probabilities [N, K] of networks that were not trained on the image."""

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def out_of_fold(runs: Mapping[Path, Classifier], root: str | None = None, trusted: Sequence[str] = ()) -> OutOfFold:
    """Predict each run's own fold; where several runs have the same fold their probabilities are averaged.

    Raises UserError for runs without folds, with folds of different data, or if a fold has no run.
    """
    check_folds(runs)
    parts: dict[int, list[tuple[np.ndarray, ...]]] = {}
    for path, classifier in runs.items():
        data = load_data(classifier.config, root, path, trusted)
        split = chosen_split(data, "val", classifier.class_names)
        probabilities = classifier.logits(split.images).double().softmax(1).numpy()
        part = (data.val_indices, split.images.numpy(), split.labels.numpy(), probabilities)
        parts.setdefault(classifier.config["data"]["fold"], []).append(part)
    folds = [(*same[0][:3], np.mean([part[3] for part in same], axis=0)) for same in parts.values()]
    indices, images, labels, probabilities = (np.concatenate(column) for column in zip(*folds, strict=True))
    order = np.argsort(indices)
    if not np.array_equal(indices[order], np.arange(len(indices))):
        raise UserError("the folds of these runs are not parts of one training set: has the data changed in between?")
    return OutOfFold(data.name, tuple(data.class_names), images[order], labels[order], probabilities[order])


def check_folds(runs: Mapping[Path, Classifier]) -> None:
    """Raise UserError unless the runs are those of one cross-validation, every fold among them."""
    settings = {path: classifier.config["data"] for path, classifier in runs.items()}
    first = next(iter(settings))
    for path, data in settings.items():
        if type(data.get("folds")) is not int or type(data.get("fold")) is not int:
            raise UserError(f"{path}: its run has no folds, as those of -m data.folds=5 data.fold=0,1,2,3,4 have")
        for key in SHARED:
            if data.get(key) != settings[first].get(key):
                shown = f"{key}={settings[first].get(key)}", f"{key}={data.get(key)}"
                raise UserError(f"{first} has data.{shown[0]}, {path} data.{shown[1]}: give the folder of one sweep")
    folds = settings[first]["folds"]
    missing = sorted(set(range(folds)) - {data["fold"] for data in settings.values()})
    if missing:
        numbers = ",".join(map(str, missing))
        typed = f"-m data.folds={folds} data.fold={numbers}"
        raise UserError(f"no run has fold {numbers} of {folds}: train what is missing with {typed}")
