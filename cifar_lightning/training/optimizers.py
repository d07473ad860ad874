"""Optimizers from config: any class that takes parameters or groups of them, torch.optim's first of all."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cifar_lightning.config import instantiate
from cifar_lightning.errors import UserError

FUSED_DEVICES = {"cpu", "cuda", "mps"}


def build_optimizer(network: nn.Module, optimizer: Mapping[str, Any], *, allow_fused: bool = True) -> Optimizer:
    """The optimizer that `optimizer["_target_"]` names, over the parameters that are trained.

    Its other keys are the class's own, but two: `decay_norms_and_biases` (see `parameter_groups`), and `name`,
    which the config made `_target_` of. One fused kernel does the step where class and device have one and
    `fused` is not given; `allow_fused=False` is for callers that need the gradients unscaled before the step.
    """
    keys = {key: value for key, value in optimizer.items() if key not in ("decay_norms_and_biases", "name")}
    factory = instantiate({**keys, "_partial_": True})
    accepted = inspect.signature(factory.func).parameters
    one_group = optimizer.get("decay_norms_and_biases", True) or "weight_decay" not in accepted
    groups = parameter_groups(network, decay_norms_and_biases=one_group)
    chosen = any(keys.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    if allow_fused and not chosen and "fused" in accepted and _on_fused_devices(groups):
        factory.keywords["fused"] = True
    try:
        return factory(groups)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer ({optimizer['_target_']}): {error}") from error


def parameter_groups(network: nn.Module, *, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """One group of all trained parameters, or two: the second, without weight decay, is of norms and biases."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise UserError("no parameter is left to train: model.freeze leaves nothing, or the network has none")
    if decay_norms_and_biases:
        return [{"params": trained}]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1]},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _on_fused_devices(groups: list[dict[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(parameter.device.type in FUSED_DEVICES and parameter.is_floating_point() for parameter in parameters)
