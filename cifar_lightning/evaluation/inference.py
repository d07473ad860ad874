"""Predict classes and probabilities with a trained network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifar_lightning.data.arrays import with_channels
from cifar_lightning.data.images import read_image, to_array
from cifar_lightning.errors import UserError
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.metrics import check_logits

AnyImage = str | os.PathLike[str] | Image.Image
AnyImages = AnyImage | Sequence[AnyImage] | np.ndarray | Tensor
# Small enough for large networks at 224 px, large enough for small ones.
BATCH = 100


@dataclass(frozen=True)
class Predictions:
    """`probabilities` [N, K] of N images, on the CPU; each row sums to 1."""

    probabilities: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def classes(self) -> Tensor:
        """The index of each image's most probable class, int64 [N]."""
        return self.probabilities.argmax(1)

    @property
    def names(self) -> list[str]:
        """The name of each image's most probable class."""
        return [self.class_names[i] for i in self.classes.tolist()]

    @property
    def confidences(self) -> Tensor:
        """The probability of each image's most probable class, [N]."""
        return self.probabilities.amax(1)

    def top(self, k: int = 3) -> list[list[tuple[str, float]]]:
        """The names and probabilities of each image's `k` most probable classes, in descending order."""
        values, indices = torch.sort(self.probabilities, dim=1, descending=True, stable=True)
        rows = zip(indices[:, :k].tolist(), values[:, :k].tolist(), strict=True)
        return [[(self.class_names[i], p) for i, p in zip(*row, strict=True)] for row in rows]


class Classifier:
    """A trained network with its normalization and class names, as `cifar_lightning.api.load` returns it.

    `config` is its training run's config in plain containers, `module` the LightningModule in evaluation mode.
    """

    def __init__(self, module: ImageClassifier, device: str | torch.device = "cpu") -> None:
        self.module = module.eval().to(device)
        self.class_names, self.config = module.class_names, module.config
        self.image_shape = module.image_shape or ()

    def predict(self, images: AnyImages) -> Predictions:
        """Classes and probabilities of one image or many.

        images: paths of image files or PIL images, of any size and mode; or an array or tensor
        [N, C, H, W] (or one [C, H, W]) of the `image_shape`, uint8, or floating point in [0, 1].
        With a temperature in the checkpoint (`evaluate card=true keep_temperature=true`) probabilities are calibrated.
        Raises UserError for a file that can't be read and for an array of another shape or range.
        """
        logits = self.logits(as_batch(images, self.image_shape)).double() / self.module.temperature
        return Predictions(logits.softmax(1).float(), self.class_names)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits float [N, K] on the CPU, in single precision, of images [N, C, H, W], uint8 or in [0, 1]."""
        logits = torch.cat([self.module(some.to(self.module.device)).float().cpu() for some in images.split(BATCH)])
        check_logits(logits, self.class_names)
        return logits


def as_batch(images: Any, shape: Sequence[int]) -> Tensor:
    """The images as uint8 or floating point [N, C, H, W]. Raises UserError for other shapes or ranges."""
    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    if isinstance(images, Sequence):
        if not images:
            raise UserError("there are no images to predict")
        arrays = [
            to_array(each, shape[-1]) if isinstance(each, Image.Image) else read_image(each, shape[-1])
            for each in images
        ]
        return torch.from_numpy(with_channels(np.stack(arrays), shape[0]))
    batch = torch.as_tensor(images)
    batch = batch[None] if batch.ndim == 3 else batch
    if not len(batch) or (shape and batch.shape[1:] != tuple(shape)):
        raise UserError(
            f"images of shape {tuple(batch.shape)}: an array must be [N, {', '.join(map(str, shape))}]; "
            "paths and PIL images are resized"
        )
    if batch.dtype == torch.uint8:
        return batch
    if not batch.is_floating_point() or not (batch.min() >= 0 and batch.max() <= 1):
        raise UserError(f"images of {batch.dtype}: give uint8 from 0 to 255, or floating point in [0, 1]")
    return batch.float()
