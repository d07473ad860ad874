"""Checks of a composed config and of what was typed, before torch is imported."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cifar_lightning.config.compose import compose, conf_dir, parse_overrides, plain
from cifar_lightning.config.hints import all_keys, choices, explain, is_group, other_key, own_folders, plain_or_raw
from cifar_lightning.config.monitors import check_monitors, is_own, training_images, validation_images
from cifar_lightning.config.rules import RULES
from cifar_lightning.errors import UserError, first_line, nearest
from cifar_lightning.models.torchvision_families import NAMES

ODD = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, LookupError, RecursionError)
# Groups whose keys are those of whatever their `_target_` names.
OWN_KEYS = ("model", "loss", "optimizer", "scheduler", "callbacks")


NEEDED = (
    "data._target_", "model._target_", "module._target_", "loss._target_", "optimizer._target_", "scheduler._target_",
    "augmentation.transforms",
)  # fmt: skip


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
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(explain(error, parsed)) from error
    check_environment(config)
    check_files(config, parsed)
    check_deletions(parsed)
    check_targets(config)
    check_values(config, parsed)
    return config


def check_targets(config: DictConfig) -> None:
    """Raise UserError for a group that does not say what is to be built, or has nothing where a run looks."""
    for key in (*NEEDED, *([] if is_own(config) else ["data.name"])):
        group = key.partition(".")[0]
        if OmegaConf.select(config, group) is None or OmegaConf.select(config, key) is None:
            raise UserError(f"{key} is missing: choose another {group}{nearest('', choices(group))}")
    if config.trainer is None:
        raise UserError(f"trainer is missing{nearest('', choices('trainer'))}")
    if "lr" not in config.optimizer and str(config.optimizer._target_).startswith(("cifar_lightning.", "torch.")):
        raise UserError("optimizer.lr is missing: a run needs a learning rate")


def check_environment(config: DictConfig) -> None:
    """A config's values are written into the run's files: a variable of the environment needs a word of consent.

    Raises UserError for one that neither our own files name nor `trust_env`.
    """
    tree = plain_or_raw(config)
    tree.pop("hydra", None)
    named = {name for text in texts(tree) if "oc.env" in text for name in named_variables(text)}
    if named:
        in_ours = {name for path in conf_dir().rglob("*.yaml") for name in named_variables(path.read_text("utf-8"))}
        for name in sorted(named - in_ours - set(tree.get("trust_env") or [])):
            raise UserError(
                f"the value of the environment variable {name} would be written into config.yaml and every "
                f"checkpoint: allow it by trust_env=[{name}], if it is no secret"
            )


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from texts(value)


def named_variables(text: str) -> Iterator[str]:
    """The variables that interpolations in a text name, as OmegaConf reads them; `?` for one that is computed."""
    for start in (match.end() for match in re.finditer(r"\$\{\s*oc\.env\s*:", text)):
        name = re.match(r"\s*([\"']?)([^,}\"'$\s]+)\1\s*[,}]", text[start:])
        yield name[2] if name else "?"


def check_files(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise UserError for a key in a file of the user's own that no run would look at."""
    if all(o.key_or_group not in ("experiment", "debug", "hydra.searchpath") for o in overrides):
        return  # all files are ours
    reference = compose([o.input_line for o in overrides if o.input_line and ours(o)])
    tree = plain_or_raw(config)
    tree.pop("hydra", None)
    typed = {o.key_or_group for o in overrides}
    for group in ("experiment", "debug"):
        if isinstance(tree.get(group), dict):
            choice = next((o.value() for o in overrides if o.key_or_group == group), "?")
            raise UserError(f"{group}={choice}: its file needs the first line '# @package _global_', or it is ignored")
    used = " ".join(texts(tree))
    for section in ("", "data", "paths"):
        known = plain_or_raw(reference if not section else reference[section])
        for key in tree if not section else tree[section]:
            name = f"{section}.{key}".lstrip(".")
            if key not in known and name not in typed and f"${{{name}" not in used and not is_group(name):
                hint = other_key(name, all_keys(plain_or_raw(reference)))
                raise UserError(f"{file_with(key, overrides)}: there is no key {name}{hint}")


def ours(override: Override) -> bool:
    """Whether an override chooses one of our own files: the keys of those are known."""
    group, choice = override.key_or_group, override.value()
    return is_group(group) and group not in ("experiment", "debug", "hydra.searchpath") and choice in choices(group)


def file_with(key: str, overrides: Sequence[Override]) -> str:
    """The user's config file that has this key."""
    experiments = conf_dir() / "experiment"
    for path in [path for root in (*own_folders(overrides), experiments) for path in sorted(root.rglob("*.yaml"))]:
        if re.search(rf"^\s*{re.escape(key)}\s*:", path.read_text(encoding="utf-8", errors="replace"), re.M):
            return str(path)
    return "a config file"


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
    if not config.train and not config.test:
        raise UserError("train=false test=false leaves nothing to do: set one of them to true")
    if not config.train and config.ckpt_path is None:
        raise UserError("train=false tests a checkpoint: name it with ckpt_path=…")
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
    data, total = config.data, training_images(config)
    if total is None:
        return
    val = validation_images(config, total)
    if val >= total:
        raise UserError(f"data.val_size={data.val_size}: {data.name} has only {total:,} training images")
    if data.batch_size > total - val:
        raise UserError(f"data.batch_size={data.batch_size}: the training split has only {total - val:,} images")
