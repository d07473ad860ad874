"""What a network costs: parameters, multiply-adds, latency, and its size and accuracy with fewer bits."""

import copy
import io
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cifar_lightning.data.loader import Split
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.evaluation.intervals import Measure, share
from cifar_lightning.training.operations import per_image

BATCHES = (1, 256)
SECONDS = 1.5  # of measuring each batch size
WARM_UP, FEWEST, MOST = 3, 10, 200  # passes


def cost_measures(classifier: Classifier, split: Split) -> dict[str, Measure]:
    """Parameters, multiply-adds of one image, latencies, and size and accuracy in float32, float16 and int8.

    The spread of a latency is its range without the fastest and slowest tenth. Sizes are those of the weights' files.
    """
    network = classifier.module.network
    channels, size = split.images.shape[1], split.images.shape[-1]
    operations = per_image(network, "evaluated", channels, size, ())
    measures = {
        "parameters": Measure("parameters", sum(p.numel() for p in network.parameters()), unit="count"),
        "multiply_adds": Measure("multiply-adds of an image", operations // 2, unit="count"),
    }
    for size in BATCHES:
        measures[f"latency_{size}"] = latency(classifier, split.images[torch.arange(size) % len(split)])
    for name, stored in (("float32", dict), ("float16", halved), ("int8", quantized)):
        file, weights = stored(network.state_dict()), network.state_dict()
        reduced = copy.deepcopy(classifier.module)
        reduced.network.load_state_dict(restored(file) if stored is not dict else weights)
        hits = Classifier(reduced, classifier.module.device).logits(split.images).argmax(1) == split.labels
        measures[f"size_{name}"] = Measure(f"size in {name}", file_size(file), unit="bytes")
        measures[f"acc_{name}"] = share(f"accuracy in {name}", hits)
    return measures


@torch.inference_mode()
def latency(classifier: Classifier, images: Tensor) -> Measure:
    """The median time in ms from images uint8 [N, C, H, W] to logits on the device, with its spread."""
    images = images.to(classifier.module.device)
    wait: Callable[[], object] = torch.cuda.synchronize if images.is_cuda else lambda: None
    times: list[float] = []
    for _ in range(WARM_UP):
        classifier.module(images)
    wait()
    begin = time.perf_counter()
    while len(times) < FEWEST or (time.perf_counter() - begin < SECONDS and len(times) < MOST):
        start = time.perf_counter()
        classifier.module(images)
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    low, middle, high = (
        torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    )
    name = "1 image" if len(images) == 1 else f"{len(images)} images"
    return Measure(f"latency of {name}", middle, low, high, len(images), "ms")


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}


def quantized(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers as int8 with a float32 scale for each output; vectors as they are."""
    stored = {}
    for key, tensor in weights.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            scale = tensor.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
            stored[key] = (tensor / scale.view(-1, *[1] * (tensor.ndim - 1))).round().to(torch.int8)
            stored[f"{key} scale"] = scale
        else:
            stored[key] = tensor
    return stored


def restored(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Single precision again, in which the network computes."""
    weights = {}
    for key, tensor in stored.items():
        if f"{key} scale" in stored:
            scale = stored[f"{key} scale"]
            weights[key] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
        elif not key.endswith(" scale"):
            weights[key] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return weights


def file_size(weights: dict[str, Tensor]) -> int:
    buffer = io.BytesIO()
    torch.save({key: tensor.contiguous() for key, tensor in weights.items()}, buffer)
    return buffer.tell()
