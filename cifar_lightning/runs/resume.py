"""Restore the config of a run that resumes or is tested again, with those overrides that may change it."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config.checks import check_values
from cifar_lightning.config.compose import parse_overrides, plain
from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.files import read_yaml
from cifar_lightning.runs.folders import folder_of

log = logging.getLogger(__name__)

SECTIONS = (
    "data", "augmentation", "model", "module", "loss", "optimizer", "scheduler", "callbacks", "logger", "trainer",
    "paths",
)  # fmt: skip
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm")


def config_to_go_on_with(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config of the run that wrote `config.ckpt_path`, with the overrides that may change it.

    For a checkpoint in its run's folder, that is the config.yaml there, which is the user's own and may name anything.
    A checkpoint elsewhere may come from anyone (checkpoints/trust.py) and gets the command's callbacks and loggers.
    Raises UserError, naming the file, for a config that is unusable or names what may not be built.
    """
    file = Path(config.ckpt_path)
    run = folder_of(file)
    source = run / "config.yaml" if run else file
    try:
        saved = own_config(source, plain(config)) if run else received_config(file, plain(config))
        if "root" in saved["data"]:
            from cifar_lightning.checkpoints.load import find_root  # imports torch

            saved["data"]["root"] = find_root(saved, file) or plain(config)["data"].get("root", "data")
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(source)) else f"{source}: {error}") from error
    resumed = resumed_config(saved, config, overrides)
    try:
        check_values(resumed, [])
    except UserError:
        raise
    except Exception as error:  # a missing key, or one of another type
        raise UserError(f"{source}: its config can't be used: {first_line(error)}") from error
    warn_if_schedule_changes(saved, resumed)
    return resumed


def own_config(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The run's config.yaml, with paths inside its folder changed to where the folder is now."""
    saved = read_yaml(file)
    check_complete(saved)
    old, new = saved["paths"].get("output_dir"), str(Path(typed["paths"]["output_dir"]).absolute())

    def relocated(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: relocated(item) for key, item in value.items()}
        if isinstance(value, list):
            return [relocated(item) for item in value]
        is_inside = isinstance(value, str) and isinstance(old, str) and old and f"{value}/".startswith(f"{old}/")
        return new + value[len(old) :] if is_inside else value

    return {key: relocated(value) for key, value in saved.items()}


def received_config(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint's config as far as it decides the result; loggers, callbacks, paths and hardware are those typed.

    Raises UserError, before anything is built, if it names what may not be built.
    """
    from cifar_lightning.checkpoints.read import read_checkpoint  # imports torch
    from cifar_lightning.checkpoints.trust import admitted, check_remembered_paths

    checkpoint = read_checkpoint(file)
    ours = checkpoint["cifar_lightning"]
    saved: Any = ours.get("config") if isinstance(ours, dict) else None
    check_complete(saved)
    trust = typed["trust"]
    trusted = [name for name in (trust.split(",") if isinstance(trust, str) else trust) if name]
    kept = {key: value for key, value in saved.items() if key not in ("callbacks", "logger", "paths", "trainer")}
    trainer = {
        key: saved["trainer"][key] if key in saved["trainer"] and decides(f"trainer.{key}").what == "result" else value
        for key, value in typed["trainer"].items()
    }
    check_remembered_paths(checkpoint.get("callbacks"))
    here = {key: typed[key] for key in ("callbacks", "logger", "paths")}
    return {**admitted({**kept, "trainer": trainer}, trusted), **here}


def check_complete(saved: Any) -> None:
    if not isinstance(saved, dict) or not all(isinstance(saved.get(section), dict) for section in SECTIONS):
        raise UserError("the config of the run is missing or incomplete; to use the network alone, see `evaluate`")


def resumed_config(saved: dict[str, Any], config: DictConfig, typed: Sequence[str]) -> DictConfig:
    """The saved config with those typed overrides that may change.

    Raises UserError, naming the key, for an override that would make it another experiment.
    """
    merged = OmegaConf.create(copy.deepcopy(saved))
    for key in ("paths", "ckpt_path", "train", "test", "trust"):
        merged[key] = config[key]
    for override in parse_overrides(typed):
        key = override.key_or_group
        if key == "trainer":
            for name in HARDWARE:
                merged.trainer[name] = config.trainer[name]
        elif decides(key).resume:
            OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False, force_add=True)
        else:
            refuse_changes(saved, plain(config), "" if key in ("experiment", "debug") else f"{key}.")
    return merged


def refuse_changes(saved: dict[str, Any], typed: dict[str, Any], section: str) -> None:
    """Raise UserError for the first key of the section that has another value and can't change on resuming."""
    before, now = dict(flattened(saved)), dict(flattened(typed))
    for key in dict.fromkeys([*now, *before]):
        if f"{key}.".startswith(section) and not decides(key).resume and before.get(key) != now.get(key):
            raise UserError(
                f"{key}={now.get(key)}: the checkpoint's run has {before.get(key)}; a resumed run can't change it. "
                f"Leave it out, or start a new run without ckpt_path"
            )


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def warn_if_schedule_changes(saved: Mapping[str, Any], resumed: DictConfig) -> None:
    """A schedule is as long as the training, so another length changes it from here on."""
    before, now = (
        ", ".join(f"{key}={trainer[key]}" for key in ("max_epochs", "max_steps"))
        for trainer in (saved["trainer"], resumed.trainer)
    )
    name = str(resumed.scheduler.get("_target_")).rpartition(".")[2]
    if before != now and resumed.train and name not in ("constant", "plateau"):
        log.warning(
            "scheduler=%s now lasts %s (before: %s): the result will differ from an uninterrupted run's",
            name, now, before,
        )  # fmt: skip
