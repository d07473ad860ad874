"""Test-time augmentation: the mean of a network's logits over mirrored and shifted views of each image."""

from torch import Tensor
from torch.nn.functional import pad

CHOICES = ("none", "flip", "flip_shift")


def views(images: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """Each view of floating-point images [N, C, H, W] with its weight, the images themselves first; these add up to 1.

    flip: the image and its mirror image. flip_shift: half of the weight on these two, half on both shifted by one pixel
    up and left and by one down and right, the border reflected (Jordan 2024, arXiv 2404.00498, section 3.5).
    """
    if tta == "none":
        return [(1.0, images)]
    if tta == "flip":
        return [(0.5, images), (0.5, images.flip(-1))]
    if tta != "flip_shift":
        raise ValueError(f"tta={tta} is none of {', '.join(CHOICES)}")
    height, width = images.shape[-2:]
    padded = pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[..., :height, :width], padded[..., 2:, 2:]]
    return [(0.25, view) for view in (images, images.flip(-1))] + [
        (0.125, view) for moved in shifted for view in (moved, moved.flip(-1))
    ]
