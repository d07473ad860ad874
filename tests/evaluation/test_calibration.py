import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import brier_score_loss, log_loss

from cifar_lightning.evaluation.calibration import calibration_measures, confidence_histogram, reliability_diagram
from cifar_lightning.training.metrics import calibration_error

CONFIDENCES = np.array([0.95, 0.97, 0.99, 0.5, 0.52, 1 / 15])
RIGHT = np.array([True, True, False, True, False, False])


def bars(axes, label):
    """Middle, bottom and height of the bars under one label."""
    (container,) = [c for c in axes.containers if c.get_label().startswith(label)]
    return np.array([[bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_height()] for bar in container])


def test_bars_are_the_accuracy_of_each_bin_and_gaps_end_at_its_mean_confidence():
    (axes,) = reliability_diagram(CONFIDENCES, RIGHT).axes
    middles = 100 * (np.array([0, 7, 14]) + 0.5) / 15
    assert_allclose(bars(axes, "accuracy"), [[m, 0, h] for m, h in zip(middles, [0, 50, 200 / 3], strict=True)])
    gaps = bars(axes, "gap")
    assert_allclose(gaps[:, 1] + gaps[:, 2], [100 / 15, 51, 97])


def test_the_gaps_add_up_to_the_calibration_error():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.1, 1, 1000)
    right = generator.random(1000) < confidences**2
    (axes,) = reliability_diagram(confidences, right).axes
    gaps = np.abs(bars(axes, "gap")[:, 2]) / 100
    counts, _ = np.histogram(confidences, np.linspace(0, 1, 16))
    expected = calibration_error(torch.from_numpy(confidences), torch.from_numpy(right))
    assert (gaps * counts[counts > 0]).sum() / 1000 == pytest.approx(expected)


def test_the_title_names_the_error_if_it_is_given():
    assert "2.34 %" in reliability_diagram(CONFIDENCES, RIGHT, 0.0234).axes[0].get_title("left")
    assert reliability_diagram(CONFIDENCES, RIGHT).axes[0].get_title("left") == "Reliability"


def test_correct_and_wrong_predictions_are_counted_apart():
    right, wrong = confidence_histogram(CONFIDENCES, RIGHT).axes
    assert right.get_title("left") == "3 correct predictions, mean confidence 80.7 %"
    assert wrong.get_title("left") == "3 wrong predictions, mean confidence 52.6 %"
    assert sum(patch.get_height() for patch in right.patches) == 3
    assert {round(p.get_x() + p.get_width() / 2) for p in wrong.patches if p.get_height()} == {8, 52, 98}


def test_a_network_that_is_never_wrong_has_an_empty_chart(tmp_path):
    _, wrong = confidence_histogram([0.9, 0.8], [True, True]).axes
    assert wrong.get_title("left") == "0 wrong predictions"
    assert sum(patch.get_height() for patch in wrong.patches) == 0


@pytest.fixture
def scored():
    """Logits and labels of an overconfident network."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 5, generator=generator) * 2
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    return 2 * logits, labels


def test_measures_are_those_of_numpy_and_scikit_learn(scored):
    logits, labels = scored
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    measures = calibration_measures(logits, labels)
    assert measures["ece"].value == pytest.approx(calibration_error(torch.from_numpy(confidence), torch.tensor(right)))
    parts = np.array_split(np.argsort(confidence), 15)
    adaptive = sum(abs(confidence[part].sum() - right[part].sum()) for part in parts) / 1000
    assert measures["adaptive_ece"].value == pytest.approx(adaptive)
    assert measures["nll"].value == pytest.approx(log_loss(labels, probabilities))
    assert measures["brier"].value == pytest.approx(brier_score_loss(labels, probabilities, scale_by_half=False))
    assert all(m.low < m.value < m.high and m.images == 1000 for m in measures.values())


def test_the_interval_of_the_calibration_error_is_as_wide_as_its_spread_over_test_sets(scored):
    logits, labels = scored
    values = [calibration_measures(*part)["ece"] for part in zip(logits.split(250), labels.split(250), strict=True)]
    half = np.mean([(m.high - m.low) / 2 for m in values])
    generator = torch.Generator().manual_seed(1)
    others = []
    for _ in range(60):
        rows = torch.randint(0, 1000, (250,), generator=generator)
        confidence, predicted = logits[rows].softmax(1).max(1)
        others.append(calibration_error(confidence, predicted == labels[rows]))
    assert half == pytest.approx(1.96 * np.std(others), rel=0.35)
