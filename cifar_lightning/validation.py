"""Checks of a composed config and of what was typed, before torch is imported."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cifar_lightning.config import compose, conf_dir, parse_overrides, plain
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.models.torchvision_families import NAMES
from cifar_lightning.monitors import TRAINING_IMAGES, check_monitors, validation_images
from cifar_lightning.rules import RULES

ODD = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, LookupError, RecursionError)
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|CREDENTIAL|AUTH|PRIVATE)S?(_|$)", re.IGNORECASE)
# Groups whose keys are those of whatever their `_target_` names.
OWN_KEYS = ("model", "optimizer", "scheduler", "callbacks")


def compose_checked(overrides: Sequence[str]) -> DictConfig:
    """Compose a config and check it.

    Raises UserError, naming the key and what it admits or the nearest name that exists.
    """
    for word in (*overrides, os.getcwd()):
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word}: a name that is not UTF-8, with which neither PyTorch nor TensorBoard can write")
    try:
        return _compose_checked(overrides)
    except ODD as error:  # from depths, lengths or characters that none of the libraries expects
        typed = ascii(" ".join(overrides))[1:-1]
        raise UserError(f"can't read {typed[:100]}: {(str(error).splitlines() or ['?'])[0][:200]}") from error


def _compose_checked(overrides: Sequence[str]) -> DictConfig:
    try:
        parsed = parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(f"can't read the override {error.override!r}: write key=value, or 'key=\"a b\"'") from None
    try:
        config = compose(overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, parsed)) from error
    check_secrets(config)
    check_values(config, parsed)
    return config


def check_secrets(config: DictConfig) -> None:
    """A config's values are written into the run's files; a variable that sounds like a secret must not be one."""
    tree = plain_or_raw(config)
    tree.pop("hydra", None)
    for name in re.findall(r"oc\.env:\s*(\w+)", str(tree)):
        if SECRET.search(name):
            raise UserError(
                f"${{oc.env:{name}}} would be written into config.yaml and every checkpoint: refused, as it sounds "
                "like a secret. Loggers read their keys from the environment themselves"
            )


def explain(error: Exception, overrides: Sequence[Override]) -> str:
    """One line for one of Hydra's composition errors, with the nearest valid choice."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        for override in overrides:  # groups nest: experiment=classic/alexnet
            if f"{override.key_or_group}/{override.value()}" == error.missing_cfg_file:
                group, name = override.key_or_group, str(override.value())
        return f"{group}={name}: there is no such choice{nearest(name, choices(group))}"
    if str(error).startswith("Ambiguous value"):
        return f"{first_line(error)}: add -m for a sweep over the values, or write a list as key=[a,b]"
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown:
        return unknown_key(unknown.group(1), overrides)
    if str(error).startswith("Error merging override") and error.__cause__:
        return f"{error}: {first_line(error.__cause__)}"
    # Hydra wraps some errors, such as a config file's, in one without a text.
    return " ".join((str(error).strip() or str(error.__cause__)).split())


def unknown_key(key: str, overrides: Sequence[Override]) -> str:
    if key == "hparams_search":
        return "hparams_search belongs to a command of its own: python -m cifar_lightning.search hparams_search=…"
    groups = [o.input_line for o in overrides if is_group(o.key_or_group) and o.input_line]
    keys = all_keys(plain_or_raw(compose(groups, return_hydra_config=key.startswith("hydra."))))
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent] if parent else [k for k in keys if "." not in k]
    return f"there is no key {key} (to add one of your own: +{key}=…){nearest(key, siblings or keys)}"


def nearest(name: str, valid: Sequence[str]) -> str:
    """`; did you mean …?` where one is near, else the list of valid ones."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f". Choose from: {', '.join(sorted(valid))}"


def is_group(name: str) -> bool:
    """Whether an override of this name chooses a file, or says where files lie (--config-dir)."""
    return (conf_dir() / name).is_dir() or name == "hydra.searchpath"


def choices(group: str, root: Path | None = None) -> list[str]:
    """The files of a group, those in sub-folders as `folder/file`. `root`: another folder of groups than ours."""
    folder = (root or conf_dir()) / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in Path(folder).rglob("*.yaml"))


def plain_or_raw(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def all_keys(tree: Any, prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        keys.append(prefix + str(key))
        if isinstance(value, dict):
            keys += all_keys(value, f"{prefix}{key}.")
    return keys


def check_deletions(overrides: Sequence[Override]) -> None:
    """Raise UserError where a group or key is taken away that every run needs."""
    for override in overrides:
        key = override.key_or_group
        if is_group(key) and (override.is_delete() or override.value() == []):
            raise UserError(f"{override.input_line}: a run needs a choice of {key}{nearest('', choices(key))}")
        if override.is_delete() and key in RULES and key.partition(".")[0] not in OWN_KEYS:
            raise UserError(f"{override.input_line}: a run needs this key; give it a value instead")


def check_values(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise UserError for a value that its key does not admit, or that contradicts another."""
    check_deletions(overrides)
    for key, rule in RULES.items():
        section, _, name = key.rpartition(".")
        node = OmegaConf.select(config, section) if section else config
        if node is None or name not in node:
            continue
        try:
            value = plain(node[name])
        except OmegaConfBaseException as error:
            raise UserError(f"{key}: {first_line(error)}") from None
        if not rule.admits(value):
            near = nearest(value, NAMES) if key == "model.name" and isinstance(value, str) else ""
            raise UserError(f"{key}={value}: must be {rule.words}{near}")
    check_types(config, overrides)
    check_split(config)
    check_monitors(config)
    for name, keys in config.callbacks.items():
        if OmegaConf.is_dict(keys) and "_target_" not in keys:  # a recipe's, for a callback that was not chosen
            raise UserError(f"callbacks.{name} has settings and no _target_: drop it by callbacks.{name}=null")
    if "activation" not in config.model and any(o.key_or_group.startswith("activation") for o in overrides):
        raise UserError("activation: torchvision's networks keep their own; leave it out, or choose another model")


def check_types(config: DictConfig, overrides: Sequence[Override]) -> None:
    """A typed value keeps the type that its file gives it; what was added with `+` is the person's own."""
    # Hydra checks its own part; what is in there may be known to a job only, like its number.
    values = [o for o in overrides if not is_group(o.key_or_group) and not o.key_or_group.startswith("hydra.")]
    if not values:
        return
    original = compose([o.input_line for o in overrides if o not in values and o.input_line])
    for override in values:
        key = override.key_or_group
        if override.is_add() or override.is_delete() or override.is_force_add() or key in RULES:
            continue
        before, after = value_at(original, key), value_at(config, key)
        if before is None or after is None or same_kind(before, after):
            continue
        raise UserError(f"{key}={override.value()}: must be {kind(before)}, like {plain(before)}")


def value_at(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except (OmegaConfBaseException, ValueError):  # a path that is known to a job only
        return ""


def kind(value: Any) -> str:
    if OmegaConf.is_list(value):
        return "a list"
    if OmegaConf.is_dict(value):
        return "a mapping"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[type(value)]


def same_kind(before: Any, after: Any) -> bool:
    if kind(before) in ("a number", "a text"):  # 1 for 1.0, and any scalar can be a text
        return kind(after) not in ("a list", "a mapping", "a text" if kind(before) == "a number" else "")
    # Many numbers of a network may be given once, or a list of them layer by layer.
    return kind(before) == kind(after) or {kind(before), kind(after)} == {"an integer", "a list"}


def check_split(config: DictConfig) -> None:
    data, total = config.data, TRAINING_IMAGES.get(config.data.name)
    if total is None:
        return
    val = validation_images(config, total)
    if val >= total:
        raise UserError(f"data.val_size={data.val_size}: {data.name} has only {total:,} training images")
    if data.batch_size > total - val:
        raise UserError(f"data.batch_size={data.batch_size}: the training split has only {total - val:,} images")
