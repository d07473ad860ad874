"""What the config in a checkpoint may ask for. The file may come from anyone, whoever asks to load it or go on with it.

Of the classes and functions that it names, only those of their kind in this package, torch, torchvision and Lightning
are built, and what the person names: a module with trust=…, or the very target in the command. All names are checked
before any is imported from elsewhere.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.optim import Optimizer
from torchvision.transforms import AutoAugmentPolicy

from cifar_lightning import models, training
from cifar_lightning.config.checks import check_values
from cifar_lightning.config.compose import plain
from cifar_lightning.config.rules import MOST_WORKERS, RULES
from cifar_lightning.data import augmentation
from cifar_lightning.errors import UserError

# A config is a handful of numbers; deeper nesting would be an attack on whatever walks through it.
MAX_DEPTH = 8


def _modules(package: ModuleType) -> tuple[str, ...]:
    inside = pkgutil.iter_modules(package.__path__)
    return (package.__name__, *(f"{package.__name__}.{module.name}" for module in inside))


def _is_schedule(thing: Any) -> bool:
    return inspect.isfunction(thing) and "steps_per_epoch" in inspect.signature(thing).parameters


def _is_callback(thing: Any) -> bool:
    return _is_a(Callback)(thing) or thing is timedelta


def _is_logger(thing: Any) -> bool:
    # Others would send what they are given to a service that the file names.
    return _is_a(Logger)(thing) and issubclass(thing, TensorBoardLogger | CSVLogger | WandbLogger | MLFlowLogger)


def _is_transform(thing: Any) -> bool:
    return _is_a(nn.Module)(thing) or hasattr(thing, "draw") or thing is AutoAugmentPolicy


def _is_network(thing: Any) -> bool:
    # Of torch's own layers the activations alone: nn.Upsample, for one, could make gigabytes of any image.
    home = getattr(thing, "__module__", "")
    return _is_a(nn.Module)(thing) and (
        not home.startswith("torch.") or home == "torch.nn.modules.activation" or thing is nn.Identity
    )


def _is_a(base: type) -> Callable[[Any], bool]:
    return lambda thing: isinstance(thing, type) and issubclass(thing, base)


OURS = _modules(training)
# For each group whose targets are built: the modules whose own classes or functions may be, and of which kind.
ADMITTED: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "model": (("torch.nn", *_modules(models)), _is_network),
    "activation": (("torch.nn", *_modules(models)), _is_network),
    "optimizer": (("torch.optim", *OURS), _is_a(Optimizer)),
    "scheduler": (OURS, _is_schedule),
    "augmentation": (
        ("torchvision.transforms.v2", "torchvision.transforms", *_modules(augmentation)),
        _is_transform,
    ),
    "callbacks": (("lightning.pytorch.callbacks", "datetime", *OURS), _is_callback),
    "logger": (("lightning.pytorch.loggers", *OURS), _is_logger),
}
# What these loggers may be told by a file: nothing about servers or programs.
LOGGER_KEYS = {
    "_target_", "save_dir", "name", "version", "default_hp_metric", "project", "offline", "experiment_name",
    "tracking_uri", "log_graph", "flush_logs_every_n_steps",
}  # fmt: skip
# The only thing that a name of a file may hold beside its letters: {epoch:02d}, {val/acc:.3f}. Any other format could
# put a slash in front, or reach into objects.
METRIC = re.compile(r"\{\w+(/\w+)*(:0?\d?\d?(\.\d\d?)?[defgn%]?)?\}")


def is_admitted(target: Any, trusted: Sequence[str] = (), group: str = "model") -> bool:
    """Whether `target` is the name of something that this group may hold, or lies in a trusted module.

    Of a module only what it (or its package) defines itself: torch.hub.load could also be called by way of what a
    module imports.
    """
    if not isinstance(target, str):
        return False
    module, _, name = target.rpartition(".")
    if any(target == known or module == known or module.startswith(f"{known}.") for known in trusted):
        return True
    modules, is_of_the_kind = ADMITTED.get(group, ((), bool))
    if module not in modules:
        return False
    thing = vars(importlib.import_module(module)).get(name)
    home = getattr(thing, "__module__", "")
    return (home == module or home.startswith(f"{module}.")) and is_of_the_kind(thing)


def admitted(config: Any, trusted: Sequence[str] = (), group: str = "model", depth: int = 0) -> Any:
    """A copy of a group's config in which every `_target_` may be built, and no pretrained weights are downloaded.

    Raises UserError for a `_target_` that may not, an interpolation (it would be resolved), or deep nesting.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"its config is nested more than {MAX_DEPTH} levels deep, as no run's is")
    if isinstance(config, str) and "${" in config:
        raise UserError(f"its config holds an interpolation, {config[:80]!r}; a saved config has none")
    if isinstance(config, list):
        return [admitted(value, trusted, group, depth + 1) for value in config]
    if isinstance(config, dict):
        if "_target_" in config and not is_admitted(config["_target_"], trusted, group):
            raise UserError(_refusal(config["_target_"], group))
        values = {key: admitted(value, trusted, group, depth + 1) for key, value in config.items()}
        return values | ({"pretrained": False} if "pretrained" in values else {})
    if config is None or isinstance(config, str | int | float):
        return config
    raise UserError(f"its config holds a {type(config).__name__}; a saved config has plain values only")


def _refusal(target: Any, group: str) -> str:
    known = {
        "model": "neither a network of this package nor an activation of torch.nn",
        "activation": "no activation of torch.nn",
        "optimizer": "no optimizer of torch.optim or this package",
        "scheduler": "no schedule of this package",
        "augmentation": "no augmentation of this package or torchvision.transforms.v2",
        "callbacks": "no callback of Lightning or this package",
        "logger": "none of Lightning's loggers for TensorBoard, CSV, Weights & Biases and MLflow",
    }.get(group, "nothing that is built there")
    return (
        f"its config names {str(target)[:80]!r}, which is {known}; "
        "if you trust where the file comes from, name its module with trust=…"
    )


def checked_config(checkpoint: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the checkpoint's run, to go on with: its own folder's paths turned into those of `typed`.

    typed: the config that the command selects, whose targets, and modules in `trust`, the person vouches for.
    Raises UserError for what a saved config never holds, or may not ask for, before anything is built.
    """
    ours = checkpoint["cifar_lightning"]
    saved = ours.get("config") if isinstance(ours, dict) else None
    sections = (*ADMITTED, "data", "trainer", "paths")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(section), dict) for section in sections):
        raise UserError("it holds no whole config of a run; to use its network, see the command evaluate")
    trusted = [*trusted_modules(typed["trust"]), *targets(plain(typed))]
    for section, value in saved.items():
        admitted(value, trusted, section)
    _check_paths_of_state(checkpoint.get("callbacks"))
    folder = Path(typed["paths"]["output_dir"]).absolute()
    config = {**saved}
    for section in ("callbacks", "logger"):
        config[section] = _relocated(saved[section], saved["paths"].get("output_dir"), str(folder))
        config[section] = _inside(config[section], folder, Path(typed["paths"]["log_dir"]))
    _check_loggers(config["logger"], typed["logger"], trusted_modules(typed["trust"]))
    _check_trainer(config)
    return config


def trusted_modules(given: Any) -> list[str]:
    """`trust=a,b` or `trust=[a,b]` as a list."""
    return [name for name in (given.split(",") if isinstance(given, str) else plain(given)) if name]


def targets(tree: Any) -> Iterator[str]:
    """Every `_target_` in a config that was composed here."""
    if isinstance(tree, dict):
        if isinstance(tree.get("_target_"), str):
            yield tree["_target_"]
        for value in tree.values():
            yield from targets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from targets(value)


def check_section(section: str, values: Mapping[str, Any]) -> None:
    """The rules for typed values hold for the saved ones of a group, too. Raises UserError."""
    for key, rule in RULES.items():
        group, _, name = key.rpartition(".")
        if group == section and name in values and not rule.admits(values[name]):
            raise UserError(f"its config has {key}={str(values[name])[:80]}: must be {rule.words}")


def check_resumable(config: Any) -> None:
    """The rules for what is typed hold for what was saved, too. Raises UserError."""
    try:
        check_values(config, [])
    except UserError:
        raise
    except Exception as error:  # a key that is missing, or of another kind
        raise UserError(f"its config can't be used: {(str(error).splitlines() or ['?'])[0]}") from error


def _relocated(value: Any, old: Any, new: str) -> Any:
    """Paths in the folder where the run was begun become those in the folder where it goes on."""
    if isinstance(value, dict):
        return {key: _relocated(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_relocated(item, old, new) for item in value]
    is_inside = isinstance(value, str) and isinstance(old, str) and old and f"{value}/".startswith(f"{old}/")
    return new + value[len(old) :] if is_inside else value


def _inside(value: Any, folder: Path, log_dir: Path, key: str = "") -> Any:
    """The settings of callbacks or loggers, which write into their run's folder: relative paths count from there.

    Any text may become a path. MLflow's database may lie in `log_dir`. Raises UserError for a path that leaves.
    """
    if isinstance(value, dict):
        _inside([name for name in value if name != "_target_"], folder, log_dir)
        return {name: _inside(item, folder, log_dir, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_inside(item, folder, log_dir, key) for item in value]
    if not isinstance(value, str) or key == "_target_":
        return value
    path, folders = METRIC.sub("0", value), [folder]
    if key == "tracking_uri":
        path, folders = path.removeprefix("sqlite:///"), [folder, log_dir]
    not_a_file = key == "tracking_uri" and not value.startswith("sqlite:///")
    odd = path.startswith("~") or re.search(r"[{}]|^\w+:|::|(^|/)\.\.(/|$)", path)  # `\w+:` and `::` are on a server
    if not_a_file or odd or not any((folder / path).resolve().is_relative_to(place.resolve()) for place in folders):
        raise UserError(f"its config writes to {value[:80]!r}, outside of the run's folder {folder}")
    return str(folder / value) if key in ("dirpath", "save_dir") else value


def _check_paths_of_state(state: Any) -> None:
    # Lightning removes a checkpoint that is no longer the best, by the name that the file gives it.
    for text in _texts(state):
        if ".." in Path(text).parts or "://" in text:
            raise UserError(f"its callbacks remember {text[:80]!r}, which leaves the run's folder")


def _texts(tree: Any) -> Iterator[str]:
    """Every text in it, keys too."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from _texts([*tree.keys(), *tree.values()])
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)


def _check_loggers(loggers: Mapping[str, Any], typed: Mapping[str, Any], trusted: Sequence[str]) -> None:
    for name, logger in loggers.items():
        if logger is None or is_admitted(logger.get("_target_"), trusted, group=""):
            continue
        more = sorted(set(logger) - LOGGER_KEYS - set(typed.get(name) or {}))
        if more:
            raise UserError(f"its config gives logger.{name} the key {more[0]!r}; give logger=… in the command again")


def _check_trainer(config: Mapping[str, Any]) -> None:
    for key, value in config["trainer"].items():
        if key in ("plugins", "model_registry") or isinstance(value, dict):
            raise UserError(f"its config sets trainer.{key}, which a file may not")
    counts = {
        "trainer.devices": config["trainer"].get("devices"),
        "trainer.num_nodes": config["trainer"].get("num_nodes"),
        "data.num_workers": config["data"].get("num_workers"),
    }
    for key, given in counts.items():
        if _count(given) > MOST_WORKERS:
            raise UserError(f"its config asks for {key}={str(given)[:40]}: more than {MOST_WORKERS} are refused")


def _count(given: Any) -> int:
    """How many devices `4`, `"4"`, `[0, 1]` and `"0,1"` are."""
    if isinstance(given, list) or (isinstance(given, str) and "," in given):
        return len(given if isinstance(given, list) else given.split(","))
    try:
        return int(given)
    except (TypeError, ValueError):  # none, "auto"
        return 0
