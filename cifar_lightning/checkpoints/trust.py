"""The classes and functions that the config in a checkpoint may name.

A checkpoint may come from anyone. Its config may name networks, optimizers, schedules and augmentations of this
package, torch's activations and optimizers, those of pytorch_optimizer, torchvision's transforms, and classes of
modules that the user trusts by name. All names are checked before any other module is imported.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning import LightningDataModule
from torch import nn
from torch.optim import Optimizer
from torchvision.transforms import AutoAugmentPolicy

from cifar_lightning import models, optim, training
from cifar_lightning.config.rules import RULES
from cifar_lightning.config.signatures import parameter_choices
from cifar_lightning.data import augmentation
from cifar_lightning.errors import UserError
from cifar_lightning.optim.extra import PACKAGE, check_name

# Real configs are shallow; deep nesting would be an attack on recursive functions.
MAX_DEPTH = 8


def _modules(package: ModuleType) -> tuple[str, ...]:
    inside = pkgutil.iter_modules(package.__path__)
    return (package.__name__, *(f"{package.__name__}.{module.name}" for module in inside))


MODULES = (
    "cifar_lightning.data.datamodule",
    "torch.nn",
    "torch.optim",
    "torchvision.transforms",
    "torchvision.transforms.v2",
    *(module for package in (models, optim, training, augmentation) for module in _modules(package)),
)


def is_admitted(target: Any, trusted: Sequence[str] = ()) -> bool:
    """Whether `target` may be built, or is in a trusted module.

    Only what a module (or its package) defines itself is admitted, not what it imports, such as torch.hub.
    Raises UserError for an optimizer of an extra that is not installed.
    """
    if not isinstance(target, str):
        return False
    module, _, name = target.rpartition(".")
    if any(target == known or module == known or module.startswith(f"{known}.") for known in trusted):
        return True
    if module == PACKAGE:
        check_name(target)
    elif module not in MODULES:
        return False
    thing = vars(importlib.import_module(module)).get(name)
    home = getattr(thing, "__module__", "")
    return (home == module or home.startswith(f"{module}.")) and _is_of_a_run(thing, home)


def _is_of_a_run(thing: Any, home: str) -> bool:
    if inspect.isfunction(thing):  # of ours, a schedule or a loss
        return "steps_per_epoch" in inspect.signature(thing).parameters
    if not isinstance(thing, type):
        return False
    # Of torch's layers only activations: nn.Upsample, for example, could turn any image into gigabytes.
    if home.startswith("torch.nn."):
        return home == "torch.nn.modules.activation" or thing is nn.Identity
    return (
        issubclass(thing, nn.Module | Optimizer | LightningDataModule)
        or hasattr(thing, "draw")
        or thing is AutoAugmentPolicy
    )


def admitted(config: Any, trusted: Sequence[str] = (), depth: int = 0) -> Any:
    """A copy of a config in which every `_target_` may be built, without downloads of pretrained weights.

    Raises UserError for any other `_target_`, an interpolation (it would be resolved), or deep nesting.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"its config is nested more than {MAX_DEPTH} levels deep")
    if isinstance(config, str) and "${" in config:
        raise UserError(f"its config holds an interpolation, {config[:80]!r}; a saved config contains none")
    if isinstance(config, list):
        return [admitted(value, trusted, depth + 1) for value in config]
    if isinstance(config, dict):
        if "_target_" in config and not is_admitted(config["_target_"], trusted):
            raise UserError(
                f"its config names {str(config['_target_'])[:80]!r}, which is not a network, optimizer, schedule "
                "or augmentation of this package or torch; if you trust the file, allow its module with trust=…"
            )
        values = {key: admitted(value, trusted, depth + 1) for key, value in config.items()}
        return values | ({"pretrained": False} if "pretrained" in values else {})
    if config is None or isinstance(config, str | int | float):
        return config
    raise UserError(f"its config holds a {type(config).__name__}; a saved config contains plain values only")


def check_section(section: str, values: Mapping[str, Any]) -> None:
    """Check a group's saved values by the rules for typed ones. Raises UserError."""
    for key, rule in RULES.items():
        group, _, name = key.rpartition(".")
        if group == section and name in values and not rule.allows(values[name]):
            raise UserError(f"its config has {key}={str(values[name])[:80]}: must be {rule.words}")
    for name, valid in parameter_choices(str(values.get("_target_"))).items():
        if name in values and values[name] not in valid:
            raise UserError(f"its config has {section}.{name}={str(values[name])[:80]}: must be one of {valid}")


def check_remembered_paths(callbacks: Any) -> None:
    """Raise UserError if the saved state of callbacks contains a path outside of the run's folder.

    Lightning deletes a checkpoint that is no longer the best, at the path that the file gives.
    """
    waiting = [callbacks]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and (".." in Path(value).parts or "://" in value):
            raise UserError(f"its callbacks contain the path {value[:80]!r}, which leaves the run's folder")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
