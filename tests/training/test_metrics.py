import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as sk
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar_lightning.training import metrics
from cifar_lightning.training.metrics import Sums

NAMES = [f"class {i}" for i in range(10)]


def logits_and_labels(case):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (997,), generator=generator)
    logits = torch.randn(997, 10, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 10)
    if case == "a class without images":
        labels = torch.where(labels == 3, 4, labels)
    elif case == "a class never predicted":
        logits[:, 7] = -20
    elif case == "all images of one class":
        labels = torch.full_like(labels, 2)
    elif case == "all predictions one class":
        logits[:, 5] += 20
    elif case == "ties":
        logits = logits.round().clamp(-1, 1)
    elif case == "all right":
        logits = 10.0 * torch.nn.functional.one_hot(labels, 10)
    elif case == "already between 0 and 1":
        logits = logits.softmax(1)
    return logits, labels


CASES = (
    "random",
    "a class without images",
    "a class never predicted",
    "all images of one class",
    "all predictions one class",
    "ties",
    "all right",
    "already between 0 and 1",
)


@pytest.mark.parametrize("case", CASES)
def test_figures_are_scikit_learns(case):
    logits, labels = logits_and_labels(case)
    figures = metrics.test_metrics(logits, labels, NAMES)
    predictions = logits.numpy().argmax(1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predictions, labels=range(10), zero_division=0
    )
    probabilities = np.exp(logits.double().numpy())
    probabilities /= probabilities.sum(1, keepdims=True)
    assert figures["test/acc"] == sk.accuracy_score(labels, predictions)
    assert_allclose(figures["test/loss"], sk.log_loss(labels, probabilities, labels=range(10)), rtol=1e-9)
    assert_array_equal(figures["test/confusion_matrix"], sk.confusion_matrix(labels, predictions, labels=range(10)))
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("acc", recall)):
        assert list(figures[f"test/{name}_per_class"]) == NAMES
        assert_allclose(list(figures[f"test/{name}_per_class"].values()), expected, rtol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case != "ties"])  # where the fifth place is not settled
def test_top5_is_scikit_learns(case):
    logits, labels = logits_and_labels(case)
    expected = sk.top_k_accuracy_score(labels, logits.double().softmax(1), k=5, labels=range(10))
    assert metrics.test_metrics(logits, labels, NAMES)["test/top5"] == pytest.approx(expected, rel=1e-6)


def test_calibration_error_by_hand():
    # Confidences 0.5 (one of two right: no gap), 0.9 (all three right: gap 0.1), 0.62 (none of one: gap 0.62).
    confidences = torch.tensor([0.5, 0.5, 0.9, 0.9, 0.9, 0.62]).double()
    probabilities = torch.stack([confidences, 0.999999 * (1 - confidences), 0.000001 * (1 - confidences)], 1)
    labels = torch.tensor([0, 1, 0, 0, 0, 1])
    figures = metrics.test_metrics(probabilities.log(), labels, ["a", "b", "c"])
    assert figures["test/ece"] == pytest.approx((2 * 0 + 3 * 0.1 + 1 * 0.62) / 6, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_calibration_error_is_guos(case):
    """15 bins (0, 1/15], (1/15, 2/15], … of the confidence; the mean gap to the accuracy, weighted by images."""
    logits, labels = logits_and_labels(case)
    confidences, predictions = logits.double().softmax(1).max(1)
    right = (predictions == labels).double()
    expected = 0.0
    for low in range(15):
        chosen = (confidences > low / 15) & (confidences <= (low + 1) / 15)
        if chosen.any():
            expected += float(chosen.double().mean() * (right[chosen].mean() - confidences[chosen].mean()).abs())
    assert metrics.test_metrics(logits, labels, NAMES)["test/ece"] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_torchmetrics():
    logits, labels = logits_and_labels("random")
    expected = multiclass_calibration_error(logits.softmax(1), labels, 10, n_bins=15, norm="l1").item()
    assert metrics.test_metrics(logits, labels, NAMES)["test/ece"] == pytest.approx(expected, abs=1e-5)


def test_figures_are_plain_numbers_and_two_classes_will_do():
    figures = metrics.test_metrics(torch.tensor([[1.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1]), ["cat", "dog"])
    assert figures["test/acc"] == 0.5
    assert figures["test/top5"] == 1.0
    assert figures["test/acc_per_class"] == {"cat": 1.0, "dog": 0.0}
    assert figures["test/confusion_matrix"] == [[1, 0], [1, 0]]
    assert type(figures["test/loss"]) is type(figures["test/ece"]) is float


def test_sums_weigh_by_images_and_take_soft_targets():
    logits, labels = logits_and_labels("random")
    sums = Sums(torch.device("cpu"))
    for some_logits, some_labels in zip(logits.split(100), labels.split(100), strict=True):  # the last is of 97
        sums.add(cross_entropy(some_logits, some_labels), some_logits, some_labels)
    sums.add(torch.tensor(torch.nan), logits[:0], labels[:0])  # a process with nothing left
    loss, correct, images = sums.state().tolist()
    assert images == 997
    assert loss / images == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-6)
    assert correct == sk.accuracy_score(labels, logits.argmax(1), normalize=False)

    soft = Sums(torch.device("cpu"))
    soft.add(torch.tensor(0.0), torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([[0.4, 0.6], [0.3, 0.7]]))
    assert soft.state().tolist() == [0, 1, 2]


def test_sums_go_on_from_their_state():
    sums = Sums(torch.device("cpu"))
    sums.add(torch.tensor(0.7), torch.eye(3), torch.tensor([0, 1, 0]))
    other = Sums(torch.device("cpu"))
    other.load(sums.state())
    other.add(torch.tensor(0.1), torch.eye(3)[:1], torch.tensor([0]))
    assert other.state().tolist() == pytest.approx([3 * 0.7 + 0.1, 3, 4])


def test_classes_are_told_apart_by_their_training_images():
    found = {"test/acc_per_class": {"a": 0.9, "b": 0.7, "c": 0.4, "d": 0.2}}
    labels = torch.tensor([0] * 101 + [1] * 100 + [2] * 20 + [3] * 19)
    expected = {"test/acc_many": 0.9, "test/acc_medium": pytest.approx(0.55), "test/acc_few": 0.2}
    counts = {"a": 101, "b": 100, "c": 20, "d": 19}
    assert metrics.accuracy_by_frequency(found, labels) == expected | {"train_images_per_class": counts}
    assert metrics.accuracy_by_frequency(found, torch.arange(4).repeat(200)) == {}
