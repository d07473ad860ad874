"""Inspect a network: outputs and gradients of its layers, occlusion maps, and temperature scaling."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar_lightning.data.near_duplicates import in_batches
from cifar_lightning.evaluation.inference import BATCH, Classifier
from cifar_lightning.training.classifier import ImageClassifier

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


def layer_outputs(module: ImageClassifier, images: Tensor, kinds: Kinds = nn.Module) -> dict[str, Tensor]:
    """The output [N, …] of each layer for these images, by the layer's name, in the order of computation.

    images: [N, C, H, W], uint8 or in [0, 1]; kinds: classes of layers, such as torch.nn.Conv2d, by default all without
    sublayers. The network stays in its current mode (`module.eval()`: no dropout).
    """
    return _recorded(module, images, kinds, inputs=False)


def layer_inputs(module: ImageClassifier, images: Tensor, kinds: Kinds = nn.Module) -> dict[str, Tensor]:
    """The input of each layer, otherwise as `layer_outputs`."""
    return _recorded(module, images, kinds, inputs=True)


@torch.no_grad()
def _recorded(module: ImageClassifier, images: Tensor, kinds: Kinds, inputs: bool) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    handles = []

    def record(name: str, layer: nn.Module) -> None:
        def keep(value: Tensor) -> None:
            values[name] = value.detach().clone()  # the next layer may work in place

        if inputs:
            handles.append(layer.register_forward_pre_hook(lambda _, given: keep(given[0])))
        else:
            handles.append(layer.register_forward_hook(lambda _, given, output: keep(output)))

    for name, layer in module.network.named_modules():
        if isinstance(layer, kinds) and not list(layer.children()):
            record(name, layer)
    try:
        module(images.to(module.device))
    finally:
        for handle in handles:
            handle.remove()
    return values


@torch.inference_mode()
def embeddings(classifier: Classifier, images: Tensor) -> Tensor:
    """What the last layer is given for images uint8 [N, C, H, W]: features float [N, D] on the CPU.

    The last layer is the last linear one or convolution; features that still have places are averaged over them.
    """
    module = classifier.module
    head = [layer for layer in module.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    latest: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: latest.append(given[0]))

    def features(some: Tensor) -> Tensor:
        latest.clear()
        module(some.to(module.device))
        return latest[0].flatten(2).mean(2) if latest[0].ndim == 4 else latest[0].flatten(1)

    try:
        return in_batches(features, images, BATCH)
    finally:
        handle.remove()


def weight_gradients(module: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the images' mean cross entropy for each layer's weights, without biases and norms.

    images: [N, C, H, W], uint8 or in [0, 1]; labels: int64 [N]. Neither the weights nor their `grad` are changed.
    """
    weights = {name: p for name, p in module.network.named_parameters() if p.ndim > 1 and p.requires_grad}
    with torch.enable_grad():
        loss = cross_entropy(module(images.to(module.device)).float(), labels.to(module.device))
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def occlusion(classifier: Classifier, image: Tensor, *, size: int = 8, stride: int = 2) -> Tensor:
    """The loss of the predicted class's probability when a grey square covers a pixel, [H, W].

    image: uint8 [C, H, W]. A pixel's value (-1 to 1) is the mean over the squares that cover it, of `size` pixels,
    every `stride` pixels (M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", 2014,
    section 4.2).
    """
    height, width = image.shape[1:]
    corners = [(y, x) for y in range(0, height - size + 1, stride) for x in range(0, width - size + 1, stride)]
    covers = torch.zeros(len(corners), height, width)
    for cover, (y, x) in zip(covers, corners, strict=True):
        cover[y : y + size, x : x + size] = 1
    grey = image.float().mean((1, 2)).round().to(torch.uint8)[:, None, None]
    covered = torch.where(covers.bool()[:, None], grey, image)
    before = classifier.predict(image)
    lost = before.confidences - classifier.predict(covered).probabilities[:, before.classes[0]]
    return (covers * lost[:, None, None]).sum(0) / covers.sum(0).clamp(min=1)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of the logits that minimizes their cross entropy: above 1 for an overconfident network.

    logits: [N, K] of images that were not trained on, such as the validation split; labels: [N]. Predictions and
    accuracy do not change (C. Guo et al., "On calibration of modern neural networks", 2017, section 4.2). From 0.001,
    if every prediction is correct, to 1000.
    """
    logits, labels = logits.double(), labels.to(logits.device)
    of_labels = logits.gather(1, labels[:, None])[:, 0]
    low, high = -3.0, 3.0  # decimal exponents
    for _ in range(60):
        middle = (low + high) / 2
        expected = ((logits / 10**middle).softmax(1) * logits).sum(1)
        # The cross entropy is convex in the inverse temperature, with this derivative.
        low, high = (low, middle) if (expected - of_labels).mean() <= 0 else (middle, high)
    return float(10 ** ((low + high) / 2))
