"""Optimizers from config: any class that takes parameters or groups of them, torch.optim's first of all."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cifar_lightning.config.compose import instantiate
from cifar_lightning.errors import UserError

OURS = ("decay_norms_and_biases", "groups", "name")
FLATTENING = ".LBFGS"  # views gradients as vectors, which channels_last weights do not allow
# What torch's classes ask of a network that those here don't give: its own words come late, or name no way out.
REFUSED = {
    "torch.optim.Muon": "it takes matrices only; use optimizer=muon, which trains convolutions, too",
    "torch.optim.SparseAdam": "it takes sparse gradients only, which no network here has; use optimizer=adam",
}
FUSED_DEVICES = {"cpu", "cuda", "mps"}


def build_optimizer(network: nn.Module, optimizer: Mapping[str, Any], *, allow_fused: bool = True) -> Optimizer:
    """The optimizer that `optimizer["_target_"]` names, over the parameters that are trained.

    Its other keys are the class's own, but three: `decay_norms_and_biases` and `groups` (see `parameter_groups`), and
    `name`, which the config made `_target_` of. One fused kernel does the step where class and device have one and
    `fused` is not given; `allow_fused=False` is for callers that need the gradients unscaled before the step.
    """
    if why := REFUSED.get(optimizer["_target_"]):
        raise UserError(f"optimizer ({optimizer['_target_']}): {why}")
    keys = {key: value for key, value in optimizer.items() if key not in OURS}
    factory = instantiate({**keys, "_partial_": True})
    accepted = inspect.signature(factory.func).parameters
    one_group = optimizer.get("decay_norms_and_biases", True) or "weight_decay" not in accepted
    groups = parameter_groups(network, decay_norms_and_biases=one_group, own=optimizer.get("groups") or {})
    chosen = any(keys.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    if allow_fused and not chosen and "fused" in accepted and _on_fused_devices(groups):
        factory.keywords["fused"] = True
    try:
        built: Optimizer = factory(groups)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer ({optimizer['_target_']}): {error}") from error
    known = [*built.defaults, "epochs"]
    for key, settings in (optimizer.get("groups") or {}).items():
        for name in settings:
            if name not in known:  # torch would keep it and heed it not
                raise UserError(
                    f"optimizer.groups.{key}.{name}: there is no such setting; there are {', '.join(known)}"
                )
    return built


def parameter_groups(
    network: nn.Module, *, decay_norms_and_biases: bool, own: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """One group of all trained parameters, or two: the second, without weight decay, is of norms and biases.

    Those whose names begin with a key of `own` (`head` for `head.weight`) are apart, with the settings that it gives;
    the last of several keys that fit counts. Besides the optimizer's own settings a group may have `epochs`: it is
    trained in so many first epochs only (see `Factor` in schedules.py, and `ImageClassifier`).
    Raises UserError where there is nothing to train, and for a key of `own` that no parameter begins with.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UserError("no parameter is left to train: model.freeze leaves nothing, or the network has none")
    groups: list[dict[str, Any]] = []
    for part, settings in _parts(trained, own or {}):
        if decay_norms_and_biases:
            groups.append({"params": part, **settings})
        else:
            groups.append({"params": [p for p in part if p.ndim > 1], **settings})
            groups.append({"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, **settings})
    return [group for group in groups if group["params"]]


def _parts(
    trained: Mapping[str, nn.Parameter], own: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[list[nn.Parameter], Mapping[str, Any]]]:
    """The parameters of each key of `own` with its settings; first those of none."""
    key_of = {name: ([""] + [key for key in own if f"{name}.".startswith(f"{key}.")])[-1] for name in trained}
    yield [parameter for name, parameter in trained.items() if not key_of[name]], {}
    for key, settings in own.items():
        if not isinstance(settings, Mapping) or not isinstance(settings.get("epochs", 1), int):
            raise UserError(f"optimizer.groups.{key}={settings}: give settings such as {{lr: 0.1, epochs: 3}}")
        part = [parameter for name, parameter in trained.items() if key_of[name] == key]
        if not part:
            names = ", ".join(dict.fromkeys(name.partition(".")[0] for name in trained))
            raise UserError(f"optimizer.groups.{key}: no trained parameter's name begins so; there are {names}")
        yield part, settings


def _on_fused_devices(groups: list[dict[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    if any(hasattr(parameter, "device_mesh") for parameter in parameters):  # sharded; torch has no fused SGD for those
        return False
    return all(parameter.device.type in FUSED_DEVICES and parameter.is_floating_point() for parameter in parameters)
