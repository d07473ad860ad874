"""Build an optimizer and its parameter groups from the config."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cifar_lightning.config.compose import instantiate
from cifar_lightning.errors import UserError
from cifar_lightning.optim import extra, layer_decay

OURS = ("decay_norms_and_biases", "groups", "layer_decay", "name", "sam_rho", "sam_adaptive")
# Flatten gradients with view, which channels_last weights do not allow.
FLATTENING = (".LBFGS", *(f"{extra.PACKAGE}.{name}" for name in ("AdamP", "Nero", "SGDP", "SWATS")))
# Classes of torch.optim that can't train these networks; torch reports it late or without an alternative.
REFUSED = {
    "torch.optim.Muon": "it takes matrices only; use optimizer=muon, which also trains convolutions",
    "torch.optim.SparseAdam": "it takes sparse gradients only; use optimizer=adam",
}
FUSED_DEVICES = {"cpu", "cuda", "mps"}


def build_optimizer(network: nn.Module, optimizer: Mapping[str, Any], *, allow_fused: bool = True) -> Optimizer:
    """The optimizer `optimizer["_target_"]` over the trainable parameters.

    The other keys are arguments of the class, except `decay_norms_and_biases` and `groups` (see `parameter_groups`),
    `layer_decay` (see layer_decay.py), `name`, which is part of `_target_`, and `sam_*` (see sam.py). Uses a fused
    kernel where class and device have one, unless `fused` is given; `allow_fused=False` is for callers that need
    unscaled gradients before the step.
    Raises UserError for bad arguments.
    """
    if why := REFUSED.get(optimizer["_target_"]):
        raise UserError(f"optimizer ({optimizer['_target_']}): {why}")
    keys = {key: value for key, value in optimizer.items() if key not in OURS}
    from_package = str(optimizer["_target_"]).startswith(f"{extra.PACKAGE}.")
    if from_package:
        extra.check_name(optimizer["_target_"])
    factory = instantiate({**keys, "_partial_": True})
    if from_package:
        extra.rehearse(factory, optimizer)
    accepted = inspect.signature(factory.func).parameters
    one_group = optimizer.get("decay_norms_and_biases", True) or "weight_decay" not in accepted
    groups = parameter_groups(network, decay_norms_and_biases=one_group, own=optimizer.get("groups") or {})
    if (decay := optimizer.get("layer_decay")) is not None:
        groups = layer_decay.divided(groups, layer_decay.layers_of(network, decay), decay)
    chosen = any(keys.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    if allow_fused and not chosen and "fused" in accepted and _on_fused_devices(groups):
        factory.keywords["fused"] = True
    try:
        built: Optimizer = factory(groups)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer ({optimizer['_target_']}): {error}") from error
    layer_decay.scale_rates(built)
    known = [*built.defaults, "epochs"]
    for key, settings in (optimizer.get("groups") or {}).items():
        for name in settings:
            if name not in known:  # torch would ignore it
                raise UserError(f"optimizer.groups.{key}.{name}: no such setting; choose from {', '.join(known)}")
    return built


def parameter_groups(
    network: nn.Module, *, decay_norms_and_biases: bool, own: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """One group of all trainable parameters, or two: the second has the norms and biases, without weight decay.

    Parameters whose names begin with a key of `own` (`head` for `head.weight`) get their own groups, with its settings;
    of several matching keys the last one applies. A group may also have `epochs`: it is trained in the first so many
    epochs only (see `Factor` in schedules.py, and `ImageClassifier`).
    Raises UserError if there is nothing to train, and for a key of `own` that matches no parameter.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UserError("there are no trainable parameters: model.freeze excludes all, or the network has none")
    groups: list[dict[str, Any]] = []
    for members, settings in _by_key(trained, own or {}):
        if decay_norms_and_biases:
            groups.append({"params": members, **settings})
        else:
            groups.append({"params": [p for p in members if p.ndim > 1], **settings})
            groups.append({"params": [p for p in members if p.ndim <= 1], "weight_decay": 0.0, **settings})
    return [group for group in groups if group["params"]]


def _by_key(
    trained: Mapping[str, nn.Parameter], own: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[list[nn.Parameter], Mapping[str, Any]]]:
    """The parameters that match no key of `own`, then those of each key with its settings."""
    key_of = {name: ([""] + [key for key in own if f"{name}.".startswith(f"{key}.")])[-1] for name in trained}
    yield [parameter for name, parameter in trained.items() if not key_of[name]], {}
    for key, settings in own.items():
        if not isinstance(settings, Mapping) or not isinstance(settings.get("epochs", 1), int):
            raise UserError(f"optimizer.groups.{key}={settings}: give settings such as {{lr: 0.1, epochs: 3}}")
        members = [parameter for name, parameter in trained.items() if key_of[name] == key]
        if not members:
            names = ", ".join(dict.fromkeys(name.partition(".")[0] for name in trained))
            raise UserError(
                f"optimizer.groups.{key}: no trainable parameter's name begins with this; choose from {names}"
            )
        yield members, settings


def _on_fused_devices(groups: list[dict[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    if any(hasattr(parameter, "device_mesh") for parameter in parameters):  # sharded: torch has no fused SGD for these
        return False
    return all(parameter.device.type in FUSED_DEVICES and parameter.is_floating_point() for parameter in parameters)
