"""Labels that were made wrong are found again, and the counts are those of the paper's definition."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.variants import fold_split, noisy
from cifar_lightning.evaluation.label_errors import label_errors


def by_the_paper(labels, probabilities):
    """The confident joint and the images off its diagonal, image by image (Northcutt et al. 2021, equation 1)."""
    n, classes = probabilities.shape
    thresholds = [
        np.mean([probabilities[n, j] for n in range(n) if labels[n] == j]) if j in labels else np.inf
        for j in range(classes)
    ]
    joint, found = np.zeros((classes, classes), int), []
    for k in range(n):
        confident = [j for j in range(classes) if probabilities[k, j] >= thresholds[j]]
        if confident:
            likely = max(confident, key=lambda j: probabilities[k, j])
            joint[labels[k], likely] += 1
            if likely != labels[k]:
                others = [probabilities[k, j] for j in range(classes) if j != labels[k]]
                found.append((probabilities[k, labels[k]] - max(others), k, likely, probabilities[k, likely]))
    return joint, sorted(found)


@pytest.mark.parametrize(("seed", "missing"), [(0, None), (1, None), (2, 3)])
def test_the_confident_joint_is_the_papers(seed, missing):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 400)
    labels[labels == missing] = 0
    logits = rng.normal(0, 1.5, (400, 5)) + 2 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    joint, expected = by_the_paper(labels, probabilities)
    found = label_errors(labels, probabilities)
    assert_array_equal(found.joint, joint)
    columns = (found.margin, found.index, found.likely, found.probability)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    assert 5 < len(found) == joint.sum() - joint.trace()


def test_labels_that_agree_with_the_predictions_are_not_doubted():
    labels = np.arange(30) % 3
    assert len(label_errors(labels, 0.1 + 0.7 * np.eye(3)[labels])) == 0


def centroid_probabilities(images, labels, others):
    """A classifier of a few lines: the nearer the mean of a class's images, the more probable the class."""
    centroids = np.stack([images[labels == label].mean(0) for label in range(10)])
    logits = -((others[:, None] - centroids) ** 2).sum(2) / 4
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_noise_among_the_labels_of_digits_is_found(share):
    digits = load_digits().train
    images = digits.images[:, 0, 2::4, 2::4].reshape(len(digits.labels), -1) / 255
    given = noisy(digits.labels, share, None, 10, seed=0)
    probabilities = np.empty((len(given), 10))
    for fold in range(4):
        train, val = fold_split(given, 4, fold, seed=0)
        probabilities[val] = centroid_probabilities(images[train], given[train], images[val])
    wrong = np.flatnonzero(given != digits.labels)
    found = label_errors(given, probabilities)
    assert len(set(found.index) & set(wrong)) > 0.7 * len(wrong)
    first = found.index[: len(wrong) // 2]  # ranked: the first half has hardly any mistake
    assert np.isin(first, wrong).mean() > 0.9
    hits = np.isin(found.index, wrong)
    assert (found.likely[hits] == digits.labels[found.index[hits]]).mean() > 0.9
