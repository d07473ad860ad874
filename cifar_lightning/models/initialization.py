"""Initialize weights by name.

Xavier: Glorot and Bengio 2010. Kaiming: He et al. 2015 (arXiv 1502.01852), fan-in and the gain of ReLU. LeCun: fan-in
and gain 1, for SELU (Klambauer et al. 2017). Orthogonal: Saxe et al. 2014. Dirac: torch's weights, except that the
first filters of a convolution are the identity (Zagoruyko and Komodakis 2017, arXiv 1706.00388). All but `default` and
`tutorial` set biases to 0 and leave norms at weight 1, bias 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Init = Literal[
    "default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "lecun_normal", "orthogonal",
    "dirac", "tutorial",
]  # fmt: skip


def _dirac(weight: Tensor) -> Tensor:
    if weight.ndim > 2:  # torch's own zeroes all further filters, which would then stay identical in training
        nn.init.dirac_(weight.detach()[: weight.shape[1]])
    return weight


_WEIGHTS: dict[Init, Callable[[Tensor], Tensor]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "orthogonal": nn.init.orthogonal_,
    "dirac": _dirac,
}


def initialize(network: nn.Module, init: Init) -> None:
    """Initialize all convolutions and linear layers of `network`; `default` keeps torch's initialization."""
    if init == "default":
        return
    for module in network.modules():
        if init == "tutorial":
            _as_the_tutorial_did(module)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            _WEIGHTS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _as_the_tutorial_did(module: nn.Module) -> None:
    """Xavier-uniform weights with N(0, 1) biases; norm weights N(1, 0.02) with biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.normal_(module.bias)
    elif isinstance(module, _BatchNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
