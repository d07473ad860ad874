"""Load several checkpoints as the members of an ensemble, if they can be averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cifar_lightning.checkpoints.load import classifier_of
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.errors import UserError
from cifar_lightning.models.ensemble import Ensemble
from cifar_lightning.training.classifier import ImageClassifier

# What decides which training images are held out for validation, and what changes the checksum of the data.
SPLIT_KEYS = ("val_size", "split_seed", "folds", "fold")
VARIANT_KEYS = ("labels_file", "train_size", "imbalance", "imbalance_type", "label_noise", "label_noise_type",
                "variant_seed", "channels", *SPLIT_KEYS)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A checkpoint's file, its network in evaluation mode on the CPU, and the checksum of its data, if known."""

    path: Path
    classifier: ImageClassifier
    checksum: str | None

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.classifier.config["data"])


def load_members(paths: Sequence[Path], trusted: Sequence[str] = ()) -> list[Member]:
    """The checkpoints, one or more; `trusted` as for `load_classifier`.

    Raises UserError, naming both, for two of other classes, images or data.
    """
    members = []
    for path in paths:
        checkpoint = read_checkpoint(path)
        classifier = classifier_of(checkpoint, path, trusted)
        members.append(Member(path, classifier, checkpoint["cifar_lightning"].get("data_checksum")))
        _check_pair(members[0], members[-1])
    return members


def ensemble_of(members: Sequence[Member]) -> ImageClassifier:
    """A classifier of the mean probabilities; a single member itself. Its config is the first member's."""
    classifiers = [member.classifier for member in members]
    first = classifiers[0]
    if len(classifiers) == 1:
        return first
    channels = len(first.mean)
    classifier = ImageClassifier(
        Ensemble([c.network for c in classifiers], [c.mean for c in classifiers], [c.std for c in classifiers]),
        optimizer={},
        scheduler={},
        mean=[0.0] * channels,  # each member normalizes for itself
        std=[1.0] * channels,
        class_names=first.class_names,
        image_shape=first.image_shape,
        config=first.config,
        channels_last=all(c.memory_format == torch.channels_last for c in classifiers),
    )
    return classifier.eval()


def check_same_validation(members: Sequence[Member]) -> None:
    """Raise UserError if one member's validation images are another's training images."""
    for member in members[1:]:
        for key in SPLIT_KEYS:
            here, there = members[0].data.get(key), member.data.get(key)
            if here != there:
                raise UserError(
                    f"split=val: {member.path} was trained with data.{key}={there}, {members[0].path} with "
                    f"data.{key}={here}, so one saw the other's validation images: use split=test"
                )


def _check_pair(first: Member, other: Member) -> None:
    ours, theirs = first.classifier, other.classifier
    if ours.class_names != theirs.class_names:
        if len(ours.class_names) != len(theirs.class_names):
            differing = f"{len(theirs.class_names)} classes and {len(ours.class_names)}"
        else:
            pairs = zip(theirs.class_names, ours.class_names, strict=True)
            differing = "other classes, such as {} and {}".format(*next((a, b) for a, b in pairs if a != b))
    elif ours.image_shape != theirs.image_shape:
        differing = f"images of shape {theirs.image_shape} and {ours.image_shape}"
    elif _name(first) != _name(other):
        differing = f"data {_name(other)} and {_name(first)}"
    elif _same_form(first, other) and None not in (first.checksum, other.checksum) and first.checksum != other.checksum:
        differing = f"other files of data {_name(first)} (checksums {other.checksum} and {first.checksum})"
    else:
        return
    raise UserError(f"{other.path} and {first.path} can't be averaged: they have {differing}")


def _name(member: Member) -> str:
    return str(member.data.get("name") or member.data.get("_target_"))


def _same_form(first: Member, other: Member) -> bool:
    """Whether both were trained on the same part of their data, so that the checksums can be compared."""
    return all(first.data.get(key) == other.data.get(key) for key in VARIANT_KEYS)
