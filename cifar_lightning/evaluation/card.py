"""Put the score card of a checkpoint together: each part is a module beside this one, its numbers are `Measure`s."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.calibration import calibration_measures, reliability_diagram
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.inspection import temperature
from cifar_lightning.evaluation.intervals import Measure, share
from cifar_lightning.evaluation.selective import risk_coverage, selective_measures
from cifar_lightning.reporting import card_figures

PartName = Literal["accuracy", "calibration", "selective"]
# Seconds of the small ResNet on two cores, for the progress bar.
SECONDS: dict[str, int] = {"accuracy": 1, "calibration": 10, "selective": 2}

Tick = Callable[[float, str], None]  # called with the share that is done, and with what comes


@dataclass(frozen=True)
class Subject:
    """What is scored: a classifier and its data, with the logits [N, K] of the test images and of the validation split.

    root: the folder with the data; images: at most so many for each corruption, half as many for each attack;
    kept: indices of the test images without those to leave out; corrected: labels of all test images.
    """

    classifier: Classifier
    data: Any
    root: Path
    test: Split
    logits: Tensor
    val_logits: Tensor | None = None
    images: int = 2_000
    kept: Tensor | None = None
    corrected: Tensor | None = None


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


def score(subject: Subject, names: Sequence[str], tick: Tick, *, whole: bool = False) -> dict[str, Part | str]:
    """The parts of the card by name; of a whole card, the reason in the place of a part that can't be made.

    Raises UserError for such a part that was asked for by its name, before the others are made.
    """
    reasons = {name: reason for name in names if (reason := missing(name, subject))}
    if reasons and not whole:
        raise UserError(next(f"card={name}: {reason}" for name, reason in reasons.items()))
    total, done = sum(SECONDS[name] for name in names if name not in reasons), 0
    parts: dict[str, Part | str] = {}
    for name in names:
        if name in reasons:
            parts[name] = reasons[name]
            continue
        start, length = done / total, SECONDS[name] / total

        def within(part: float, what: str, start: float = start, length: float = length, name: str = name) -> None:
            tick(start + part * length, f"{name}: {what}" if what else name)

        within(0, "")
        parts[name] = PARTS[name](subject, within)
        done += SECONDS[name]
    tick(1, "done")
    return parts


def missing(name: str, subject: Subject) -> str | None:
    """Why a part can't be made, if it can't."""
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


PARTS: dict[str, Callable[[Subject, Tick], Part]] = {
    "accuracy": accuracy,
    "calibration": calibration,
    "selective": selective,
}
assert tuple(PARTS) == tuple(SECONDS) == get_args(PartName)
