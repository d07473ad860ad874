"""Find wrong labels by confident learning, from predictions of networks that were not trained on the image.

C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021 (arXiv
1911.00068), section 3: the confident joint counts images by their given label and the class that the network is
confident of. Confident is a probability of at least the mean that the class has among the images labelled with it, so
that a class the network is unsure of in general needs less.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelErrors:
    """Images whose label is probably wrong, the most probable errors first. Shapes: all [M] but `joint`, [K, K].

    margin: the probability of the given label minus the largest of another class, from -1; likely: the class that the
    network is confident of; probability: of that class; joint: counts by given label (rows) and confident class.
    """

    index: np.ndarray
    likely: np.ndarray
    margin: np.ndarray
    probability: np.ndarray
    joint: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


def label_errors(labels: np.ndarray, probabilities: np.ndarray) -> LabelErrors:
    """The images off the diagonal of the confident joint, ranked by margin.

    labels: the given ones, int [N]; probabilities: float [N, K], of networks that did not see the image in training.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    given = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, given, minlength=classes)
    thresholds = np.where(
        counts > 0, sums / np.maximum(counts, 1), np.inf
    )  # no image to learn a class's threshold from
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely, is_confident = confident.argmax(1), confident.max(1) >= 0
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (labels[is_confident], likely[is_confident]), 1)

    others = probabilities.copy()
    others[rows, labels] = -1.0
    margin = given - others.max(1)
    found = np.flatnonzero(is_confident & (likely != labels))
    found = found[np.argsort(margin[found], kind="stable")]
    return LabelErrors(found, likely[found], margin[found], probabilities[found, likely[found]], joint)
