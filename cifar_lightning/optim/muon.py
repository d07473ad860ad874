"""Muon, momentum with orthogonalized updates, for filters and matrices; SGD for all other parameters.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024
(https://kellerjordan.github.io/posts/muon). The iteration and its coefficients are theirs: an odd polynomial of a
matrix acts on its singular values only, and this one drives all of them towards 1.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Muon for filters and matrices (two dimensions or more), SGD for the others.

    A group may choose with `muon`, and have its own `lr`, `momentum`, `nesterov` and `weight_decay`; without `muon` it
    is divided by dimension, and its settings apply to both. `weight_decay` is decoupled with Muon, and added to the
    gradient with SGD.

    ns_steps: Newton-Schulz iterations; 5 bring the singular values to about 0.7 to 1.2, 3 leave small ones smaller.
    rescale: scale each weight to the norm sqrt(rows) before its step, so that `lr` is relative to the weight's size.
    Only
        for weights whose scale does not matter, such as convolutions followed by a norm.
    Raises ValueError for values out of range, and for a vector in a group with `muon` true.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        rescale: bool = False,
        sgd_lr: float = 0.05,
        sgd_momentum: float = 0.9,
        sgd_weight_decay: float = 0.0,
    ) -> None:
        muon = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "muon": True,
                "ns_steps": ns_steps, "rescale": rescale}  # fmt: skip
        sgd = {"lr": sgd_lr, "momentum": sgd_momentum, "nesterov": nesterov, "weight_decay": sgd_weight_decay,
               "muon": False}  # fmt: skip
        super().__init__(_divided(params, muon, sgd), muon)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for key in ("lr", "weight_decay"):
            if not group[key] >= 0:
                raise ValueError(f"{key}={group[key]} must be 0 or more")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"momentum={group['momentum']} must be from 0 to below 1")
        if not (isinstance(group["ns_steps"], int) and group["ns_steps"] >= 1):
            raise ValueError(f"ns_steps={group['ns_steps']} must be an integer of at least 1")
        if group["muon"] and any(p.ndim < 2 for p in group["params"]):
            raise ValueError("Muon is for filters and matrices: put vectors into a group with muon=False")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._step_muon if group["muon"] else self._step_sgd)(params, group)
        return loss

    def _step_muon(self, params: list[Tensor], group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        if group["rescale"]:
            sizes = torch._foreach_norm(params)
            torch._foreach_mul_(params, [len(p) ** 0.5 / size for p, size in zip(params, sizes, strict=True)])
        updates = self._moments(params, [p.grad for p in params if p.grad is not None], group)
        by_shape = defaultdict(list)
        for p, update in zip(params, updates, strict=True):
            by_shape[len(p), p[0].numel()].append((p, update))
        for (rows, columns), pairs in by_shape.items():  # one product for all matrices of a shape
            matrices = torch.stack([update.reshape(rows, columns) for _, update in pairs])
            # Tall matrices get the same root mean square change per entry as square ones.
            lr = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (p, _), matrix in zip(pairs, orthogonalized(matrices, group["ns_steps"]), strict=True):
                p.add_(matrix.view(p.shape), alpha=-lr)

    def _step_sgd(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        torch._foreach_add_(params, self._moments(params, grads, group), alpha=-group["lr"])

    def _moments(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The gradients' momentum, with Nesterov as if the gradient were added once more."""
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        return list(torch._foreach_add(grads, buffers, alpha=group["momentum"])) if group["nesterov"] else buffers


def orthogonalized(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Approximate the orthogonal factors U V' of matrices U S V' [..., M, N] by Newton-Schulz iteration.

    5 steps bring singular values of at least 1/100 of the largest to 0.7 to 1.2. Computed in `dtype`: by default
    bfloat16 on a GPU, which is exact enough, and the matrices' own type elsewhere. Zeros stay zeros.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonalized(matrices.mT, steps, dtype).mT
    a, b, c = COEFFICIENTS
    # The Frobenius norm bounds the largest singular value, and the iteration holds for values up to 1.
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    x = x.to(dtype or (torch.bfloat16 if matrices.is_cuda else matrices.dtype))
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.to(matrices.dtype)


def _divided(params: Iterable[Any], muon: dict[str, Any], sgd: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups with all their settings; a group without `muon` becomes two."""
    params = list(params)
    if not params:
        raise ValueError("there are no parameters")
    groups = params if isinstance(params[0], dict) else [{"params": params}]
    divided = []
    for group in groups:
        members = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        for settings in (muon, sgd):
            wanted = settings["muon"]
            own = [p for p in members if group.get("muon", p.ndim > 1) is wanted]
            if own:
                divided.append({**settings, **group, "params": own})
    return divided
