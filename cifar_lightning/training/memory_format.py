"""How a network's convolutions and images lie in memory."""

import torch
from torch import nn

ONE_VECTOR = 16  # float32 numbers in an AVX-512 register


def memory_format(network: nn.Module, channels_last: bool) -> torch.memory_format:
    """`channels_last` where that is wanted and safe.

    In that format the gradient of a 1x1 convolution with stride and fewer than 16 input channels is written past its
    end on CPUs with AVX-512, where the threads don't share a batch evenly: wrong weights or a crash (seen with torch
    2.15, oneDNN 3.13). The other format has no such fault.
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
