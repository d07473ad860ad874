"""Accuracy on corrupted images: corruptions made here, and the published test sets where their files are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cifar_lightning.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from cifar_lightning.data.loader import Split
from cifar_lightning.data.published_tests import corrupted_split
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.intervals import Measure, mean, share

Tick = Callable[[float, str], None]


def corruption_hits(classifier: Classifier, split: Split, tick: Tick) -> dict[str, Tensor]:
    """Whether each image is classified correctly: bool [severities, N] by corruption."""
    hits = {}
    for i, kind in enumerate(CORRUPTIONS):
        tick(i / len(CORRUPTIONS), kind)
        predictions = (classifier.logits(corrupted(split.images, kind, s)).argmax(1) for s in SEVERITIES)
        hits[kind] = torch.stack([predicted == split.labels for predicted in predictions])
    return hits


def published_hits(
    classifier: Classifier, root: Path, kinds: Sequence[str], rows: Sequence[int], tick: Tick
) -> dict[str, Tensor]:
    """The same of these rows of the images in CIFAR-10-C's files."""
    hits = {}
    for i, kind in enumerate(kinds):
        tick(i / len(kinds), kind)
        splits = (corrupted_split(root, kind, severity, rows) for severity in SEVERITIES)
        hits[kind] = torch.stack([classifier.logits(some.images).argmax(1) == some.labels for some in splits])
    return hits


def corruption_measures(hits: Mapping[str, Tensor], clean: Tensor) -> dict[str, Measure]:
    """The mean accuracy over all corruptions and severities, of each severity and of each corruption.

    hits: bool [severities, N] by corruption; clean: bool [N], of the same images. The images are the same everywhere,
    so the intervals are those of means over images, each with a share of its own.
    """
    every = torch.stack(list(hits.values())).double()  # [corruptions, severities, N]

    def accuracy(words: str, some: Tensor) -> Measure:
        return mean(words, some.flatten(0, -2).mean(0), "percent", (0, 1))

    by_severity = {f"acc_severity_{s}": accuracy(f"severity {s}", every[:, s - 1]) for s in SEVERITIES}
    by_kind = {f"acc_{kind}": accuracy(kind.replace("_", " "), each.double()) for kind, each in hits.items()}
    return {
        "acc_corrupted": accuracy("mean accuracy, corrupted", every),
        "acc_clean": share("accuracy of the same images, clean", clean),
        **by_severity,
        **by_kind,
    }


def cells(hits: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """The accuracy at each severity by corruption, for a heat map."""
    return {kind: each.double().mean(1).tolist() for kind, each in hits.items()}
