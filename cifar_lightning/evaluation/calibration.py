"""Measure and plot calibration: how far a network's confidence can be trusted."""

import functools

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from cifar_lightning.evaluation.intervals import Measure, mean, resampled
from cifar_lightning.reporting.figures import COLORS, styled

BINS = 15


@styled
def reliability_diagram(confidences: ArrayLike, correct: ArrayLike, error: float | None = None) -> Figure:
    """Draw accuracy against confidence in 15 bins of equal width (Guo et al. 2017, figure 1).

    confidences: probability of the predicted class [N]; correct: whether it is the true class [N]; error: the ECE, for
    the title. The diagonal is perfect calibration. The hatched gap between a bin's accuracy and its mean confidence
    shows how overconfident (or underconfident) the network is; darker bars have more images.
    """
    confidences, correct = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=bool)
    # A bin includes its upper edge, as in the calibration error.
    bins = np.clip(np.ceil(confidences * BINS), 1, BINS).astype(int) - 1
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    accuracy = np.bincount(bins, correct, BINS)[filled] / counts[filled]
    confidence = np.bincount(bins, confidences, BINS)[filled] / counts[filled]
    centres = (np.arange(BINS)[filled] + 0.5) / BINS

    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    width = 100 / BINS
    shares = counts[filled] / max(counts.max(), 1)
    bars = axes.bar(
        100 * centres, 100 * accuracy, 0.94 * width, color=COLORS["train"], label="accuracy (darker: more images)"
    )
    for bar, share in zip(bars, shares, strict=True):
        bar.set_alpha(0.3 + 0.7 * share)
    axes.bar(
        100 * centres,
        100 * (confidence - accuracy),
        0.94 * width,
        bottom=100 * accuracy,
        color="none",
        edgecolor=COLORS["val"],
        hatch="////",
        linewidth=0.8,
        label="gap to the mean confidence",
    )
    axes.plot([0, 100], [0, 100], "--", color=COLORS["grey"], linewidth=1.2, label="perfect calibration")
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)", ylabel="accuracy (%)", aspect="equal")
    axes.set_title("Reliability" + ("" if error is None else f" (calibration error: {100 * error:.2f} %)"))
    axes.grid(True)
    axes.legend(loc="upper left")
    return figure


@styled
def confidence_histogram(confidences: ArrayLike, correct: ArrayLike) -> Figure:
    """Draw the confidences of correct and of wrong predictions, one above the other, each on its own scale.

    confidences: probability of the predicted class [N]; correct: whether it is the true class [N].
    """
    confidences, correct = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=bool)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    kinds = (("correct", correct, COLORS["train"]), ("wrong", ~correct, COLORS["val"]))
    for axes, (name, chosen, color) in zip(figure.subplots(2, 1, sharex=True), kinds, strict=True):
        percent = 100 * confidences[chosen]
        axes.hist(percent, bins=np.linspace(0, 100, 2 * BINS + 1), color=color, rwidth=0.94)
        facts = f"{len(percent):,} {name} predictions"
        if len(percent):
            axes.axvline(percent.mean(), color=COLORS["grey"], linestyle="--", linewidth=1.2)
            facts += f", mean confidence {percent.mean():.1f} %"
        axes.set_title(facts)
        axes.set(ylabel="images", xlim=(0, 100))
        axes.grid(True, axis="y")
    axes.set_xlabel("confidence (%)")
    return figure


def calibration_measures(logits: Tensor, labels: Tensor, after: bool = False) -> dict[str, Measure]:
    """The calibration of logits [N, K] for labels [N].

    ECE: top-label, 15 bins of equal width (Guo et al. 2017); adaptive ECE: 15 bins of as many images each (Nguyen and
    O'Connor 2015); the negative log-likelihood in nats; the Brier score summed over the classes, from 0 to 2 (Brier
    1950). after: name them as those after temperature scaling.
    """
    logits = logits.double()
    confidences, predictions = logits.softmax(1).max(1)
    gaps = confidences - (predictions == labels).double()
    truth = one_hot(labels, logits.shape[1])
    suffix, words = ("_scaled", ", scaled") if after else ("", "")
    kinds = {"ece": ("ECE", equal_width_bins), "adaptive_ece": ("adaptive ECE", equal_mass_bins)}
    errors = {}
    for key, (name, binned) in kinds.items():
        statistic = functools.partial(binned_error, gaps=gaps, bins=binned(confidences))
        errors[key + suffix] = resampled(name + words, statistic, len(labels))
    return errors | {
        f"nll{suffix}": mean(f"negative log-likelihood{words}", cross_entropy(logits, labels, reduction="none")),
        f"brier{suffix}": mean(f"Brier score{words}", (logits.softmax(1) - truth).square().sum(1), bounds=(0, 2)),
    }


def equal_width_bins(confidences: Tensor) -> Tensor:
    """The bin, int64 [N], of each confidence; a bin includes its upper edge."""
    return (confidences * BINS).ceil().long().clamp(1, BINS) - 1


def equal_mass_bins(confidences: Tensor) -> Tensor:
    """The bin, int64 [N], of each confidence, so that the sizes of the bins differ by one image at most."""
    bins = torch.empty(len(confidences), dtype=torch.int64)
    sizes = torch.tensor([len(part) for part in torch.arange(len(confidences)).tensor_split(BINS)])
    bins[confidences.argsort(stable=True)] = torch.arange(BINS).repeat_interleave(sizes)
    return bins


def binned_error(weights: Tensor, gaps: Tensor, bins: Tensor) -> Tensor:
    """The mean over images of their bin's gap between confidence and accuracy, [R].

    weights: [R, N]; gaps: confidence less correctness of each image [N]; bins: int64 [N].
    """
    sums = weights @ (one_hot(bins, BINS) * gaps[:, None])
    return sums.abs().sum(1) / weights.sum(1)
