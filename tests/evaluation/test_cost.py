import copy

import pytest
import torch
from helpers.small import small_classifier

from cifar_lightning.data.loader import Split
from cifar_lightning.evaluation import cost
from cifar_lightning.evaluation.inference import Classifier


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    module = small_classifier(image_shape=(3, 8, 8)).eval()
    with torch.no_grad():
        labels = module(images).argmax(1)
    return Classifier(module), Split(images, labels)


def test_parameters_operations_and_sizes_are_those_of_the_layers(small):
    found = cost.cost_measures(*small)
    # A convolution from 3 to 6 channels, 3 x 3, on 8 x 8 pixels in steps of 2 without a border; a norm; a linear layer.
    assert found["parameters"].value == 3 * 6 * 9 + 2 * 6 + 54 * 10 + 10
    assert found["multiply_adds"].value == 3 * 3 * 3 * 6 * 9 + 54 * 10
    for key in ("latency_1", "latency_256"):
        assert 0 < found[key].low <= found[key].value <= found[key].high
    assert found["acc_float32"].value == 1
    weights = small[0].module.network.state_dict()
    assert found["size_float32"].value >= 4 * sum(w.numel() for w in weights.values())
    assert found["size_float32"].value > found["size_float16"].value > found["size_int8"].value


def test_int8_is_off_by_half_a_step_at_most_and_small_networks_keep_their_predictions(small):
    classifier, split = small
    before = copy.deepcopy(classifier.module.network.state_dict())
    found = cost.cost_measures(classifier, split)
    assert found["acc_int8"].value > 0.9
    after = classifier.module.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    restored = cost.restored(cost.quantized(before))
    assert restored.keys() == before.keys()
    for key, weight in before.items():
        if weight.ndim > 1:
            half = weight.flatten(1).abs().amax(1) / 127 / 2
            off = (restored[key] - weight).flatten(1).abs().amax(1)
            assert (off <= half * 1.001).all()
            assert off.max() > 0
        else:
            assert torch.equal(restored[key], weight)
