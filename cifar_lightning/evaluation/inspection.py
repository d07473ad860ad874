"""Looking into a network: what its layers give, how gradients reach them, what an answer rests on, how sure it is."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.training.classifier import ImageClassifier

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


def layer_outputs(module: ImageClassifier, images: Tensor, kinds: Kinds = nn.Module) -> dict[str, Tensor]:
    """What each layer of the network gives for these images, by the layer's name, in the order of computation.

    images: [N, 3, H, W], uint8 or in [0, 1]; kinds: classes of layers, such as torch.nn.Conv2d, instead of all that
    have no layers inside. The outputs [N, …] are those of the network's present mode (`module.eval()`: no dropout).
    """
    return _recorded(module, images, kinds, inputs=False)


def layer_inputs(module: ImageClassifier, images: Tensor, kinds: Kinds = nn.Module) -> dict[str, Tensor]:
    """As `layer_outputs`, what each layer gets."""
    return _recorded(module, images, kinds, inputs=True)


@torch.no_grad()
def _recorded(module: ImageClassifier, images: Tensor, kinds: Kinds, inputs: bool) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    handles = []

    def record(name: str, layer: nn.Module) -> None:
        def keep(value: Tensor) -> None:
            values[name] = value.detach().clone()  # a layer may work in place

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


def weight_gradients(module: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy of these images in each layer's weights, biases and scales left out.

    images: [N, 3, H, W], uint8 or in [0, 1]; labels: int64 [N]. Neither the weights nor their `grad` are changed.
    """
    weights = {name: p for name, p in module.network.named_parameters() if p.ndim > 1 and p.requires_grad}
    with torch.enable_grad():
        loss = cross_entropy(module(images.to(module.device)).float(), labels.to(module.device))
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def occlusion(classifier: Classifier, image: Tensor, *, size: int = 8, stride: int = 2) -> Tensor:
    """How much of the predicted class's probability is lost when a grey square covers a place, [H, W].

    image: uint8 [3, H, W]. A pixel's value is the mean over the squares that cover it, in probability (so -1 to 1);
    squares of `size` pixels lie every `stride` (M. Zeiler and R. Fergus, "Visualizing and understanding convolutional
    networks", 2014, section 4.2).
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
    """The number by which to divide logits so that their cross-entropy is lowest: above 1 for a network too sure.

    logits: [N, K] of images that were not trained on, such as the validation part; labels: [N]. Classes and accuracy
    stay as they are (C. Guo et al., "On calibration of modern neural networks", 2017, section 4.2). From 0.001, where
    every answer is right, to 1000.
    """
    logits, labels = logits.double(), labels.to(logits.device)
    of_labels = logits.gather(1, labels[:, None])[:, 0]
    low, high = -3.0, 3.0  # of the exponent of ten
    for _ in range(60):
        middle = (low + high) / 2
        expected = ((logits / 10**middle).softmax(1) * logits).sum(1)
        # Cross-entropy is convex in the inverse temperature, with this derivative.
        low, high = (low, middle) if (expected - of_labels).mean() <= 0 else (middle, high)
    return float(10 ** ((low + high) / 2))
