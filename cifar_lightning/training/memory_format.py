"""Choose the memory format of a network's convolutions and images."""

import torch
from torch import nn

ONE_VECTOR = 16  # float32 numbers in an AVX-512 register


def memory_format(network: nn.Module, channels_last: bool) -> torch.memory_format:
    """`channels_last` where it is wanted and safe.

    In that format the gradient of a strided 1x1 convolution with fewer than 16 input channels is written past its end
    on CPUs with AVX-512 if the threads don't divide the batch evenly: wrong weights or a crash (torch 2.15, oneDNN
    3.13).
    """
    return (
        torch.channels_last if channels_last and not any(map(_unsafe, network.modules())) else torch.contiguous_format
    )


def _unsafe(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and max(module.stride) > 1
        and module.in_channels // module.groups < ONE_VECTOR
    )
