"""Images for the tests of augmentation: the digits in colour, so that a change of one channel shows."""

import torch
from torch import Tensor

from cifar_lightning.data.digits import load_digits


def pictures(n: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """[n, 3, 32, 32]; float dtypes in [0, 1]."""
    images = torch.from_numpy(load_digits().train.images[:n]).clone()
    images[:, 0] = 255 - images[:, 0]
    images[:, 1] = images[:, 1].roll((3, 5), (1, 2)) // 2 + torch.arange(32, dtype=torch.uint8)[:, None]
    return images if dtype == torch.uint8 else (images.double() / 255).to(dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
