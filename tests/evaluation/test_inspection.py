"""Looking into networks, against what can be computed by hand or by SciPy."""

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy

from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.inspection import layer_inputs, layer_outputs, occlusion, temperature, weight_gradients
from cifar_lightning.training.classifier import ImageClassifier


def classifier_of(network: nn.Module, classes: int = 10) -> ImageClassifier:
    return ImageClassifier(
        network, optimizer={}, scheduler={}, mean=(0, 0, 0), std=(1, 1, 1), class_names=list("abcdefghij")[:classes],
        config={},
    ).eval()  # fmt: skip


@pytest.fixture
def module() -> ImageClassifier:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(4))
    return classifier_of(nn.Sequential(convolutions, nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 7 * 7, 10)))


IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_outputs_are_those_of_the_layers_one_by_one(module):
    outputs = layer_outputs(module, IMAGES)
    assert list(outputs) == ["0.0", "0.1", "0.2", "1", "2", "3"]
    values = IMAGES
    for name, output in outputs.items():
        values = module.network.get_submodule(name)(values.clone())
        torch.testing.assert_close(output, values)
    assert outputs["0.0"].min() < 0  # though the next layer works in place
    inputs = layer_inputs(module, IMAGES)
    torch.testing.assert_close(list(inputs.values()), [module.normalized(IMAGES), *list(outputs.values())[:-1]])


def test_outputs_of_one_kind_and_no_trace_in_the_network(module):
    assert list(layer_outputs(module, IMAGES, (nn.ReLU, nn.Linear))) == ["0.1", "3"]
    assert not any(layer._forward_hooks for layer in module.network.modules())
    with pytest.raises(RuntimeError):
        layer_outputs(module, IMAGES[:, :, :8])
    assert not any(layer._forward_hooks for layer in module.network.modules())


def test_gradients_are_those_of_backward(module):
    labels = torch.arange(6)
    gradients = weight_gradients(module, IMAGES, labels)
    assert all(p.grad is None for p in module.parameters())
    cross_entropy(module(IMAGES), labels).backward()
    assert list(gradients) == ["0.0.weight", "3.weight"]
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, module.network.get_parameter(name).grad)


class OnePlace(nn.Module):
    """Sure of class 0 where the square of 4 pixels at (8, 16) is white, undecided where it is grey or black."""

    def forward(self, images):
        white = (images[:, :, 8:12, 16:20].mean((1, 2, 3)) - 0.5).clamp(min=0)
        return torch.stack([20 * white, torch.zeros_like(white)], 1)


def test_occlusion_finds_the_place_that_decides():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, 8:12, 16:20] = 255
    classifier = Classifier(classifier_of(OnePlace(), 2))
    lost = occlusion(classifier, image, size=4, stride=4)
    expected = torch.zeros(32, 32)
    expected[8:12, 16:20] = torch.tensor(10.0).sigmoid() - 0.5  # the mean of the image is nearly black
    torch.testing.assert_close(lost, expected, atol=1e-5, rtol=0)


def test_the_temperature_is_where_scipy_finds_the_lowest_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(500, 10, generator=generator)
    labels = torch.where(
        torch.rand(500, generator=generator) < 0.6, logits.argmax(1), torch.randint(10, (500,), generator=generator)
    )
    found = minimize_scalar(
        lambda t: cross_entropy(logits.double() / t, labels).item(), bounds=(0.1, 100), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert temperature(logits, labels) == pytest.approx(found.x, rel=1e-6)
    assert found.x > 1.5


def test_a_network_that_is_always_right_can_not_be_too_sure():
    logits = torch.eye(4)
    assert temperature(logits, torch.arange(4)) == pytest.approx(1e-3)
