"""Random brightness, contrast and saturation."""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from cifar_lightning.errors import UserError


class ColorJitter:
    """Change each image's brightness, contrast and saturation by its own random factors, in its own random order.

    A number s draws the factor from 1 - s to 1 + s, a pair from low to high; 0 leaves that property unchanged. As
    torchvision's v2.ColorJitter on tensors: clamped, and uint8 rounded down, after each step.

    Shapes: images [N, 3 or 1, H, W], uint8 or float in [0, 1]; parameters (order int64 [N], factors float [N, 3]).
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0.0,
        contrast: float | Sequence[float] = 0.0,
        saturation: float | Sequence[float] = 0.0,
    ) -> None:
        given = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        ranges = [_range(key, value) for key, value in given.items()]
        self.low, self.high = torch.tensor(ranges).unbind(1)
        self.orders = list(permutations(i for i, factors in enumerate(ranges) if factors != (1.0, 1.0)))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        device = generator.device
        order = torch.randint(len(self.orders), (n,), generator=generator, device=device)
        uniform = torch.rand(n, 3, generator=generator, device=device)
        return order, torch.lerp(self.low.to(device), self.high.to(device), uniform)

    def apply(self, images: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
        order, factors = parameters
        out = torch.empty_like(images)
        for i, steps in enumerate(self.orders):
            chosen = (order == i).nonzero()[:, 0]
            some = self._in_order(images.index_select(0, chosen), factors[chosen], steps)
            out.index_copy_(0, chosen, some)
        return out

    @staticmethod
    def _in_order(images: Tensor, factors: Tensor, steps: tuple[int, ...]) -> Tensor:
        is_float = images.is_floating_point()
        values = images if is_float else images.float()  # a copy in either case
        for step in steps:
            factor = factors[:, step, None, None, None].to(values.dtype)
            other = (_black, _mean_grey, _grey)[step](values, is_float)
            values.mul_(factor).addcmul_(other, 1 - factor).clamp_(0, 1 if is_float else 255)
            if not is_float:
                values.floor_()
        return values.to(images.dtype)


def _black(values: Tensor, is_float: bool) -> Tensor:
    return values.new_zeros(len(values), 1, 1, 1)


def _mean_grey(values: Tensor, is_float: bool) -> Tensor:
    return _grey(values, is_float).mean((2, 3), keepdim=True)


def _grey(values: Tensor, is_float: bool) -> Tensor:
    if values.shape[1] == 1:
        return values.clone()
    red, green, blue = values.unbind(1)
    # Weights and rounding of torchvision's (ITU-R BT.601).
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)[:, None]
    return grey if is_float else grey.floor_()


def _range(key: str, value: float | Sequence[float]) -> tuple[float, float]:
    low, high = (max(0.0, 1 - value), 1 + value) if isinstance(value, int | float) else value
    if not 0 <= low <= high:
        raise UserError(f"ColorJitter: {key}={value} must be a number of at least 0, or two, the smaller one first.")
    return float(low), float(high)
