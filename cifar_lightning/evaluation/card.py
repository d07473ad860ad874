"""Put the score card of a checkpoint together: each part is a module beside this one, its numbers are `Measure`s."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.data.loader import Split
from cifar_lightning.data.published_tests import corrupted_split, corruptions_in, new_test_sets
from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.attacks import ATTACKS, BOUNDLESS, LONGER, SEARCH, masking, survivors
from cifar_lightning.evaluation.calibration import calibration_measures, reliability_diagram
from cifar_lightning.evaluation.corruption_accuracy import cells, corruption_hits, corruption_measures, published_hits
from cifar_lightning.evaluation.cost import cost_measures
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.inspection import temperature
from cifar_lightning.evaluation.intervals import Measure, share
from cifar_lightning.evaluation.out_of_distribution import detection_measures
from cifar_lightning.evaluation.people import counts_of, people_measures
from cifar_lightning.evaluation.selective import risk_coverage, selective_measures
from cifar_lightning.reporting import card_figures

PartName = Literal[
    "accuracy", "calibration", "selective", "people", "corruptions", "test_sets", "attacks", "ood", "cost"
]
# Seconds of the small ResNet on two cores, for the progress bar.
SECONDS: dict[str, int] = {
    "accuracy": 1, "calibration": 4, "selective": 2, "people": 1, "corruptions": 150, "test_sets": 100, "attacks": 100,
    "ood": 30, "cost": 30,
}  # fmt: skip

SHORT = ("acc_corrupted", "acc_clean")  # of the corruptions, what a short table shows
Tick = Callable[[float, str], None]  # called with the share that is done, and with what comes


@dataclass(frozen=True)
class Subject:
    """What is scored: a classifier and its data.

    root: the folder with the data; images: at most so many for each corruption, half as many for each attack;
    kept: indices of the test images without those to leave out; corrected: labels of all test images; others: images
    of other data by its name.
    """

    classifier: Classifier
    data: Any
    root: Path
    test: Split
    images: int = 2_000
    kept: Tensor | None = None
    corrected: Tensor | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def logits(self) -> Tensor:
        """[N, K] of all test images."""
        return self.classifier.logits(self.test.images)

    @cached_property
    def val_logits(self) -> Tensor | None:
        """Those of the validation split, None where there is none."""
        return self.classifier.logits(self.data.val.images) if len(self.data.val) else None

    def some(self, most: int) -> Tensor:
        """The indices of at most so many test images, always the same ones, in order."""
        order = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(0))
        return order[:most].sort().values

    def split(self, rows: Tensor) -> Split:
        return Split(self.test.images[rows], self.test.labels[rows])


@dataclass(frozen=True)
class Part:
    """A part of the card: its numbers, remarks, plain details and figures.

    headlines: the measures that a short table shows; none: all of them.
    """

    title: str
    measures: Mapping[str, Measure]
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    headlines: Sequence[str] = ()


def score(subject: Subject, names: Sequence[str], tick: Tick) -> dict[str, Part]:
    """The parts of the card, by name. `missing` says before which can't be made."""
    total, done = sum(SECONDS[name] for name in names), 0
    parts: dict[str, Part] = {}
    for name in names:
        start, length = done / total, SECONDS[name] / total

        def within(part: float, what: str, start: float = start, length: float = length, name: str = name) -> None:
            tick(start + part * length, f"{name}: {what}" if what else name)

        within(0, "")
        parts[name] = PARTS[name](subject, within)
        done += SECONDS[name]
    tick(1, "done")
    return parts


def missing(name: str, subject: Subject) -> str | None:
    """Why a part can't be made, if it can't. Raises UserError for damaged files."""
    if name == "people":
        try:
            counts_of(subject.root, subject.test)
        except UserError as error:
            return str(error)
    if name == "test_sets":
        if subject.data.name != "cifar10":
            return "CIFAR-10.1, CIFAR-10.2 and CIFAR-10-C have the classes of cifar10 only"
        if not new_test_sets(subject.root) and not corruptions_in(subject.root):
            return f"there are no files of CIFAR-10.1, CIFAR-10.2 or CIFAR-10-C in {subject.root}"
        for kind in corruptions_in(subject.root):  # damaged files are found before the work
            corrupted_split(subject.root, kind, 1, [len(subject.test) - 1])
    if name == "ood" and not subject.others:
        return "there is no other data in the data folder: name some with ood=[NAME], or ood=[NAME:FOLDER]"
    return None


def accuracy(subject: Subject, tick: Tick) -> Part:
    predictions = subject.logits.argmax(1)
    hits = predictions == subject.test.labels
    measures = {"acc": share("accuracy", hits)}
    notes = []
    if subject.kept is not None:
        measures["acc_without_excluded"] = share("accuracy without the excluded images", hits[subject.kept])
        notes.append(f"{len(hits) - len(subject.kept):,} test images are excluded.")
    if subject.corrected is not None:
        measures["acc_corrected"] = share("accuracy by the corrected labels", predictions == subject.corrected)
        changed = int((subject.corrected != subject.test.labels).sum())
        notes.append(f"{changed:,} labels of test images are corrected.")
    return Part("Accuracy", measures, notes)


def calibration(subject: Subject, tick: Tick) -> Part:
    logits, labels = subject.logits, subject.test.labels
    measures = calibration_measures(logits, labels)
    drawn = {"reliability": reliability(logits, labels, measures["ece"].value)}
    if subject.val_logits is None:
        notes = ["Not scaled: the run had no validation split to fit a temperature on (data.val_size=0)."]
        return Part("Calibration", measures, notes, {}, drawn)
    tick(0.5, "temperature")
    divisor = temperature(subject.val_logits, subject.data.val.labels)
    measures |= calibration_measures(logits / divisor, labels, after=True)
    drawn["reliability_scaled"] = reliability(logits / divisor, labels, measures["ece_scaled"].value)
    notes = [
        f"Scaled: logits divided by the temperature {divisor:.3f}, fitted on the {len(subject.val_logits):,} images of "
        "the validation split. The intervals take it as given."
    ]
    return Part("Calibration", measures, notes, {"temperature": divisor}, drawn)


def reliability(logits: Tensor, labels: Tensor, error: float) -> Figure:
    confidences, predictions = logits.double().softmax(1).max(1)
    return reliability_diagram(confidences, predictions == labels, error)


def selective(subject: Subject, tick: Tick) -> Part:
    logits, labels = subject.logits, subject.test.labels
    curve = risk_coverage(logits, labels)
    drawn = {"risk_coverage": card_figures.risk_coverage(curve["coverage"], curve["risk"])}
    return Part("Selective prediction", selective_measures(logits, labels), (), curve, drawn)


def people(subject: Subject, tick: Tick) -> Part:
    counts = counts_of(subject.root, subject.test)
    notes = ["CIFAR-10H (Peterson et al. 2019); logits as they are, without a temperature."]
    return Part("Agreement with people", people_measures(subject.logits, subject.test.labels, counts), notes)


def corruptions(subject: Subject, tick: Tick) -> Part:
    rows = subject.some(subject.images)
    split = subject.split(rows)
    hits = corruption_hits(subject.classifier, split, tick)
    clean = subject.logits[rows].argmax(1) == split.labels
    notes = [
        "Made here after Hendrycks and Dietterich (2019), with the settings of CIFAR-10-C: not the same images, so "
        "compare with other cards, not with published figures. Frost is missing, as it needs their photographs."
    ]
    title = "Accuracy on corrupted images"
    return corruption_part("Corruptions", hits, corruption_measures(hits, clean), notes, title)


def corruption_part(
    title: str, hits: Mapping[str, Tensor], measures: Mapping[str, Measure], notes: Sequence[str], heading: str
) -> Part:
    found = cells(hits)
    kinds = [kind.replace("_", " ") for kind in hits]
    drawn = {title.lower().replace(" ", "_"): card_figures.heat_map(list(found.values()), kinds, heading)}
    return Part(title, measures, notes, {"accuracies": found}, drawn, [key for key in measures if key in SHORT])


def test_sets(subject: Subject, tick: Tick) -> Part:
    measures = {}
    for title, split in new_test_sets(subject.root).items():
        tick(0, title)
        hits = subject.classifier.logits(split.images).argmax(1) == split.labels
        measures[f"acc_{title.lower().replace('-', '').replace('.', '_')}"] = share(f"accuracy on {title}", hits)
    kinds = corruptions_in(subject.root)
    if not kinds:
        return Part("Other test sets", measures)
    rows = subject.some(subject.images)
    published = published_hits(subject.classifier, subject.root, kinds, rows.tolist(), tick)
    clean = subject.logits[rows].argmax(1) == subject.test.labels[rows]
    measures |= corruption_measures(published, clean)
    notes = [f"CIFAR-10-C as published: {len(kinds)} corruptions."]
    part = corruption_part("Other test sets", published, measures, notes, "Accuracy on CIFAR-10-C")
    return replace(part, headlines=[*(key for key in measures if key.startswith("acc_cifar")), "acc_corrupted"])


def attacks(subject: Subject, tick: Tick) -> Part:
    """The check takes an eighth of the images: those that survive are attacked again for many steps."""
    rows = subject.some(max(subject.images // 2, 1))
    split, module = subject.split(rows), subject.classifier.module.requires_grad_(False)

    def network(images: Tensor) -> Tensor:
        return module(images.to(module.device))

    survived = {}
    for i, (key, attack) in enumerate(ATTACKS.items()):
        tick(0.8 * i / len(ATTACKS), attack.words)
        survived[key] = survivors(network, split, attack)
    tick(0.8, "are gradients masked?")
    few = slice(0, max(len(split) // 4, 1))
    part = Split(split.images[few], split.labels[few])
    longer, boundless = (survivors(network, part, attack) for attack in (LONGER, BOUNDLESS))
    searched = survivors(network, part, SEARCH, "search")
    signs = masking(survived["fgsm_linf_2"][few], survived["pgd_linf_2"][few], longer, searched, boundless)
    measures = {f"acc_{key}": share(f"accuracy under {ATTACKS[key].words}", hits) for key, hits in survived.items()}
    checks = {"longer": (LONGER, longer), "search": (SEARCH, searched), "boundless": (BOUNDLESS, boundless)}
    measures |= {f"check_{key}": share(f"check: {attack.words}", hits) for key, (attack, hits) in checks.items()}
    verdict = f"Gradients may be masked: {'; '.join(signs)}." if signs else "No sign of masked gradients."
    return Part("Attacks", measures, [verdict], {"masked": signs}, {}, [f"acc_{key}" for key in ATTACKS])


def ood(subject: Subject, tick: Tick) -> Part:
    measures: dict[str, Measure] = {}
    for i, (name, images) in enumerate(subject.others.items()):
        tick(i / len(subject.others), name)
        measures |= detection_measures(subject.logits, subject.classifier.logits(images), name)
    headlines = [key for key in measures if "_max_softmax_" in key]
    notes = ["AUROC: 50 % is chance, 100 % is best. FPR95: 0 % is best."]
    return Part("Out of distribution", measures, notes, {}, {}, headlines)


def cost(subject: Subject, tick: Tick) -> Part:
    notes = [
        "Latency: median of many passes after a warm-up; its interval holds the middle 80 % of them.",
        "float16 and int8: of the weights in the file (int8: one scale for each output of a convolution or linear "
        "layer); the network computes in single precision.",
    ]
    return Part("Cost", cost_measures(subject.classifier, subject.test), notes)


PARTS: dict[str, Callable[[Subject, Tick], Part]] = {
    "accuracy": accuracy,
    "calibration": calibration,
    "selective": selective,
    "people": people,
    "corruptions": corruptions,
    "test_sets": test_sets,
    "attacks": attacks,
    "ood": ood,
    "cost": cost,
}
assert tuple(PARTS) == tuple(SECONDS) == get_args(PartName)
