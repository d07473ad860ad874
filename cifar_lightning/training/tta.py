"""Test-time augmentation: average a network's logits over mirrored and shifted views of each image."""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import pad

TTA = Literal["none", "flip", "flip_shift", "flip_shift_uncertain"]

UNCERTAIN = 0.25  # share of a batch (github.com/hiverge/cifar10-speedrun)


def averaged_logits(network: Callable[[Tensor], Tensor], images: Tensor, tta: TTA) -> tuple[Tensor, Tensor]:
    """The mean logits [N, K] over each image's views, and the logits of the images themselves; both float32.

    flip_shift_uncertain: the views of flip_shift for the quarter of the images whose largest probability is lowest, one
    view for the others: less than half of flip_shift's time.
    """
    if tta == "flip_shift_uncertain":
        plain = network(images).float()
        confidences = plain.softmax(1).amax(1)
        least = confidences.topk(math.ceil(UNCERTAIN * len(images)), largest=False).indices
        averaged = plain.clone()
        averaged[least] = averaged_logits(network, images[least], "flip_shift")[0]
        return averaged, plain
    weighted = [(weight, network(view).float()) for weight, view in views(images, tta)]
    return sum(weight * logits for weight, logits in weighted), weighted[0][1]  # type: ignore[return-value]


def views(images: Tensor, tta: TTA) -> list[tuple[float, Tensor]]:
    """(weight, view) of floating-point images [N, C, H, W], the images themselves first; weights sum to 1.

    flip: the image and its mirror image. flip_shift: half of the weight on these two, half on both shifted by one pixel
    up and left, and down and right, with reflected borders (Jordan 2024, arXiv 2404.00498, section 3.5).
    """
    if tta == "none":
        return [(1.0, images)]
    if tta == "flip":
        return [(0.5, images), (0.5, images.flip(-1))]
    height, width = images.shape[-2:]
    padded = pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[..., :height, :width], padded[..., 2:, 2:]]
    return [(0.25, view) for view in (images, images.flip(-1))] + [
        (0.125, view) for moved in shifted for view in (moved, moved.flip(-1))
    ]
