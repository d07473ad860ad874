"""A measured number with its 95 % interval: of shares, of means, and of any statistic of weighted images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Z = 1.959964  # of the standard normal distribution, 2.5 % lie above it
RESAMPLES = 200  # the standard deviation of a statistic is then known to 5 %
AT_ONCE = 20  # resamples of 20,000 images: 3 MB of weights
Unit = Literal["percent", "number", "count", "ms", "bytes"]


@dataclass(frozen=True)
class Measure:
    """A number, what it is in words, its 95 % interval and the number of images; `images` is 0 where none were used."""

    words: str
    value: float
    low: float | None = None
    high: float | None = None
    images: int = 0
    unit: Unit = "percent"


def share(words: str, hits: Tensor) -> Measure:
    """The share of hits, bool [N], with Wilson's score interval (1927), which also holds near 0 and 1."""
    p = hits.double().mean().item()
    return Measure(words, p, *wilson(p, len(hits)), len(hits))


def wilson(p: float, n: int) -> tuple[float, float]:
    """The interval of a share p of n."""
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean(words: str, values: Tensor, unit: Unit = "number", bounds: tuple[float, float] = (0, math.inf)) -> Measure:
    """The mean of values [N], one an image, with the normal interval within the `bounds`."""
    values, n = values.double(), len(values)
    centre = values.mean().item()
    half = Z * values.std().item() / math.sqrt(n) if n > 1 else math.inf
    return Measure(words, centre, max(bounds[0], centre - half), min(bounds[1], centre + half), n, unit)


def resampled(words: str, statistic: Callable[[Tensor], Tensor], images: int, share_of: int | None = None) -> Measure:
    """A statistic in [0, 1] with its bootstrap interval.

    statistic: from weights of the images, float64 [R, N], to values [R]. A resample gives each image a weight of its
    own from a Poisson distribution. The interval is 1.96 standard deviations of the resampled values to either side of
    the value on all images, not the quantiles of the resampled values: those of a calibration error, which noise can
    only raise, lie too high.
    share_of: the statistic is a share of so many images: at least Wilson's interval, since where all images are right,
    no resample has a wrong one.
    """
    value = statistic(torch.ones(1, images, dtype=torch.float64)).item()
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(AT_ONCE, images, dtype=torch.float64)
    values = torch.cat([statistic(torch.poisson(ones, generator)) for _ in range(RESAMPLES // AT_ONCE)])
    half = Z * values.std().item()
    low, high = wilson(value, share_of) if share_of else (value, value)
    return Measure(words, value, max(0.0, min(low, value - half)), min(1.0, max(high, value + half)), images)
