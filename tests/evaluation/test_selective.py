import numpy as np
import pytest
import torch

from cifar_lightning.evaluation.selective import risk_coverage, selective_measures


def predictions(n=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=generator) * 2
    noisy = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    return logits, noisy


def test_area_and_accuracy_are_those_of_the_definition():
    logits, labels = predictions()
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != labels).numpy()[np.argsort(-confidence.numpy())]
    risks = [wrong[:k].mean() for k in range(1, 501)]
    measures = selective_measures(logits, labels)
    assert measures["aurc"].value == pytest.approx(np.mean(risks))
    assert measures["acc_at_90"].value == pytest.approx(1 - risks[449])
    assert measures["aurc"].low < np.mean(risks) < measures["aurc"].high
    curve = risk_coverage(logits, labels)
    assert curve["risk"] == pytest.approx(risks[4::5])
    assert curve["coverage"][-1] == 1


def test_a_network_that_knows_its_mistakes_has_a_small_area():
    labels = torch.arange(100) % 2
    logits = torch.nn.functional.one_hot(labels, 2).float() * 5
    logits[:10] = logits[:10].flip(1) / 10  # wrong, and least certain
    knowing = selective_measures(logits, labels)
    assert knowing["acc_at_90"].value == 1
    assert knowing["aurc"].value == pytest.approx(np.mean([0] * 90 + [k / (90 + k) for k in range(1, 11)]))


def test_certain_predictions_are_ranked_by_their_logits_where_probabilities_round_to_one():
    logits = torch.tensor([[60.0, 0.0], [70.0, 0.0], [80.0, 0.0], [50.0, 0.0]])
    assert risk_coverage(logits, torch.tensor([0, 0, 0, 1]))["risk"] == pytest.approx([0] * 75 + [0.25] * 25)
