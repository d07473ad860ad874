"""Go on with a run, or test it again: the config that it had, and what of it may be changed."""

import copy
import logging
from collections.abc import Mapping, Sequence
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
    """The config of the run that wrote `config.ckpt_path`, with what was typed and may change.

    A checkpoint in its run's folder has the config.yaml there, which is the user's own and may name anything. One that
    lies alone may come from anyone (checkpoints/trust.py); it goes on with the command's callbacks and loggers.
    Raises UserError, naming the file, for a config that can't be used or names what may not be built.
    """
    file = Path(config.ckpt_path)
    run = folder_of(file)
    source = run / "config.yaml" if run else file
    try:
        saved = own_config(source, plain(config)) if run else received_config(file, plain(config))
        if "root" in saved["data"]:  # downloaded where they lie now, or where this command says
            from cifar_lightning.checkpoints.load import find_root  # imports torch

            saved["data"]["root"] = find_root(saved, file) or plain(config)["data"].get("root", "data")
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    resumed = resumed_config(saved, config, overrides)
    try:
        check_values(resumed, [])
    except UserError:
        raise
    except Exception as error:  # a key that is missing, or of another kind
        raise UserError(f"{source}: its config can't be used: {first_line(error)}") from error
    say_if_schedule_changes(saved, resumed)
    return resumed


def own_config(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's config.yaml holds, its own folder's paths turned into those of where it goes on."""
    saved = read_yaml(file)
    _check_whole(saved)
    return _relocated(saved, saved["paths"].get("output_dir"), str(Path(typed["paths"]["output_dir"]).absolute()))


def received_config(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint's own config says of the training; where it takes place and what watches it, is `typed`.

    Raises UserError, before anything is built, for one that names what may not be built.
    """
    from cifar_lightning.checkpoints.read import read_checkpoint  # imports torch
    from cifar_lightning.checkpoints.trust import admitted, check_remembered_paths

    checkpoint = read_checkpoint(file)
    ours = checkpoint["cifar_lightning"]
    saved: Any = ours.get("config") if isinstance(ours, dict) else None
    _check_whole(saved)
    trusted = trusted_modules(typed["trust"])
    kept = {key: value for key, value in saved.items() if key not in ("callbacks", "logger", "paths", "trainer")}
    trainer = {
        key: saved["trainer"][key] if key in saved["trainer"] and decides(f"trainer.{key}").what == "result" else value
        for key, value in typed["trainer"].items()
    }
    check_remembered_paths(checkpoint.get("callbacks"))
    here = {key: typed[key] for key in ("callbacks", "logger", "paths")}
    return {**admitted({**kept, "trainer": trainer}, trusted), **here}


def trusted_modules(given: str | Sequence[str]) -> list[str]:
    """`trust=a,b` or `trust=[a,b]` as a list."""
    return [name for name in (given.split(",") if isinstance(given, str) else given) if name]


def _check_whole(saved: Any) -> None:
    if not isinstance(saved, dict) or not all(isinstance(saved.get(section), dict) for section in SECTIONS):
        raise UserError("it holds no whole config of a run; to use a network alone, see the command evaluate")


def _relocated(value: Any, old: Any, new: str) -> Any:
    """Paths in the folder where the run was begun become those in the folder where it goes on."""
    if isinstance(value, dict):
        return {key: _relocated(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_relocated(item, old, new) for item in value]
    is_inside = isinstance(value, str) and isinstance(old, str) and old and f"{value}/".startswith(f"{old}/")
    return new + value[len(old) :] if is_inside else value


def resumed_config(saved: dict[str, Any], config: DictConfig, typed: Sequence[str]) -> DictConfig:
    """The saved config with what was typed and may change.

    Raises UserError, naming the key, for a typed override that would make it another experiment.
    """
    merged, typed_values = OmegaConf.create(copy.deepcopy(saved)), plain(config)
    for key in ("paths", "ckpt_path", "train", "test", "trust"):
        merged[key] = config[key]
    for override in parse_overrides(typed):
        key = override.key_or_group
        if key == "trainer":
            for name in HARDWARE:
                merged.trainer[name] = config.trainer[name]
        elif decides(key).resume:
            OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False, force_add=True)
        elif key in ("experiment", "debug"):
            refuse_changes(saved, typed_values, "")
        else:
            section = key.lstrip("+~")
            refuse_changes(
                {section: plain(OmegaConf.select(OmegaConf.create(saved), section))},
                {section: plain(OmegaConf.select(config, section))},
                "",
            )
    return merged


def refuse_changes(saved: dict[str, Any], typed: dict[str, Any], prefix: str) -> None:
    for key in [*typed, *(key for key in saved if key not in typed)]:
        name, value = prefix + key, typed.get(key)
        if decides(name).resume or name == "choices":
            continue
        if isinstance(value, dict) and isinstance(saved.get(key), dict):
            refuse_changes(saved[key], value, name + ".")
        elif saved.get(key) != value:
            raise UserError(
                f"{name}={value}: the checkpoint's run has {saved.get(key)}; a resumed run can't change it. "
                f"Leave it out, or start a new run without ckpt_path"
            )


def say_if_schedule_changes(saved: Mapping[str, Any], resumed: DictConfig) -> None:
    """A schedule is as long as the training: where that gets another length, it takes another course from here on."""
    lengths = [
        {key: trainer[key] for key in ("max_epochs", "max_steps")} for trainer in (saved["trainer"], resumed.trainer)
    ]
    name = str(resumed.scheduler.get("_target_")).rpartition(".")[2]
    if lengths[0] != lengths[1] and resumed.train and name not in ("constant", "plateau"):
        log.warning(
            "scheduler=%s now lasts %s (before: %s), so this run ends elsewhere than one that was never stopped",
            name,
            *(", ".join(f"{key}={value}" for key, value in length.items()) for length in reversed(lengths)),
        )
