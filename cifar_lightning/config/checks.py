"""Check a composed config and the overrides before torch is imported."""

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
from cifar_lightning.config.methods import check_methods
from cifar_lightning.config.monitors import (
    check_monitors,
    is_own,
    training_images,
    training_split_size,
    validation_images,
)
from cifar_lightning.config.rules import RULES
from cifar_lightning.config.signatures import parameter_choices
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError, first_line, nearest
from cifar_lightning.models.torchvision_families import family_of

ODD = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, LookupError, RecursionError)
# Groups whose keys are those of whatever their `_target_` names.
OWN_KEYS = ("model", "loss", "optimizer", "scheduler", "callbacks")


NEEDED = (
    "data._target_", "model._target_", "module._target_", "loss._target_", "optimizer._target_", "scheduler._target_",
    "augmentation.transforms",
)  # fmt: skip


def compose_checked(overrides: Sequence[str]) -> DictConfig:
    """Compose a config and check it.

    Raises UserError with the key and its valid values, or the nearest existing name.
    """
    for word in (*overrides, os.getcwd()):
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word}: the path is not valid UTF-8, and PyTorch and TensorBoard can't write to it")
    try:
        return _compose_checked(overrides)
    except ODD as error:  # raised by the libraries on absurd nesting, length or characters
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
    """Raise UserError where a group lacks a key that every run needs, such as its `_target_`."""
    for key in (*NEEDED, *([] if is_own(config) else ["data.name"])):
        group = key.partition(".")[0]
        if OmegaConf.select(config, group) is None or OmegaConf.select(config, key) is None:
            raise UserError(f"{key} is missing: choose another {group}{nearest('', choices(group))}")
    if OmegaConf.is_missing(config.data, "root"):
        raise UserError(f"data.root is missing: say where the images of data={config.data.name} are, data.root=…")
    if config.trainer is None:
        raise UserError(f"trainer is missing{nearest('', choices('trainer'))}")
    if "lr" not in config.optimizer and str(config.optimizer._target_).startswith(("cifar_lightning.", "torch.")):
        raise UserError("optimizer.lr is missing: a run needs a learning rate")


def check_environment(config: DictConfig) -> None:
    """Raise UserError for an environment variable that is named neither in our own config files nor in `trust_env`.

    Config values are written into the run's files, so reading a variable needs the user's consent.
    """
    tree = plain_or_raw(config)
    tree.pop("hydra", None)
    named = {name for text in texts(tree) if "oc.env" in text for name in named_variables(text)}
    if named:
        in_ours = {name for path in conf_dir().rglob("*.yaml") for name in named_variables(path.read_text("utf-8"))}
        for name in sorted(named - in_ours - set(tree.get("trust_env") or [])):
            raise UserError(
                f"the value of the environment variable {name} would be written into config.yaml and every "
                f"checkpoint: if it is not a secret, allow it with trust_env=[{name}]"
            )


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from texts(value)


def named_variables(text: str) -> Iterator[str]:
    """The environment variables in a text's interpolations, as OmegaConf parses them; `?` for a computed name."""
    for start in (match.end() for match in re.finditer(r"\$\{\s*oc\.env\s*:", text)):
        name = re.match(r"\s*([\"']?)([^,}\"'$\s]+)\1\s*[,}]", text[start:])
        yield name[2] if name else "?"


def check_files(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise UserError for a key in the user's own config files that no run reads."""
    if all(o.key_or_group not in ("experiment", "debug", "hydra.searchpath") for o in overrides):
        return  # all files are ours
    words = [o.input_line for o in overrides if o.input_line and ours(o)]
    data = config.hydra.runtime.choices.get("data")  # an experiment may choose it
    reference = compose([*words, *([f"data={data}"] if data in choices("data") else [])])
    tree = plain_or_raw(config)
    tree.pop("hydra", None)
    typed = {o.key_or_group for o in overrides}
    for group in ("experiment", "debug"):
        if isinstance(tree.get(group), dict):
            choice = next((o.value() for o in overrides if o.key_or_group == group), "?")
            raise UserError(f"{group}={choice}: the first line of its file must be '# @package _global_'")
    used = " ".join(texts(tree))
    for section in ("", "data", "paths"):
        known = plain_or_raw(reference if not section else reference[section])
        for key in tree if not section else tree[section]:
            name = f"{section}.{key}".lstrip(".")
            if key not in known and name not in typed and f"${{{name}" not in used and not is_group(name):
                hint = other_key(name, all_keys(plain_or_raw(reference)))
                raise UserError(f"{file_with(key, overrides)}: there is no key {name}{hint}")


def ours(override: Override) -> bool:
    """Whether an override chooses one of our own config files, whose keys are known."""
    group, choice = override.key_or_group, override.value()
    return is_group(group) and group not in ("experiment", "debug", "hydra.searchpath") and choice in choices(group)


def file_with(key: str, overrides: Sequence[Override]) -> str:
    """The user's config file that contains this key."""
    experiments = conf_dir() / "experiment"
    for path in [path for root in (*own_folders(overrides), experiments) for path in sorted(root.rglob("*.yaml"))]:
        if re.search(rf"^\s*{re.escape(key)}\s*:", path.read_text(encoding="utf-8", errors="replace"), re.M):
            return str(path)
    return "a config file"


def check_deletions(overrides: Sequence[Override]) -> None:
    """Raise UserError for the deletion of a group or key that every run needs."""
    for override in overrides:
        key = override.key_or_group
        if is_group(key) and (override.is_delete() or override.value() == []):
            raise UserError(f"{override.input_line}: every run needs a {key}{nearest('', choices(key))}")
        if override.is_delete() and key in RULES and key.partition(".")[0] not in OWN_KEYS:
            raise UserError(f"{override.input_line}: every run needs this key; set it to a value instead")


def check_values(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise UserError for a value that its key does not allow, or that contradicts another value."""
    for key, rule in RULES.items():
        section, _, name = key.rpartition(".")
        node = OmegaConf.select(config, section) if section else config
        if node is None or name not in node:
            continue
        try:
            value = plain(node[name])
        except OmegaConfBaseException as error:
            raise UserError(f"{key}: {first_line(error)}") from None
        if not rule.allows(value):
            raise UserError(f"{key}={value}: must be {rule.words}")
    if str(config.model._target_).endswith(".TorchvisionClassifier"):
        family_of(config.model.name)
    check_choices(config)
    if not config.train and not config.test:
        raise UserError("train=false test=false leaves nothing to do: set one of them to true")
    if not config.train and config.ckpt_path is None:
        raise UserError("train=false tests a checkpoint: give its path with ckpt_path=…")
    check_types(config, overrides)
    check_split(config)
    check_monitors(config)
    check_methods(config)
    for name, keys in config.callbacks.items():
        if (
            OmegaConf.is_dict(keys) and "_target_" not in keys
        ):  # an experiment's settings for a callback that was not chosen
            raise UserError(f"callbacks.{name} has settings but no _target_: remove it with callbacks.{name}=null")
    if "activation" not in config.model and any(o.key_or_group.startswith("activation") for o in overrides):
        raise UserError("activation: networks of torchvision and timm have their own; omit it, or choose another model")


def check_choices(config: DictConfig) -> None:
    """Raise UserError for a value that is not among those of a `Literal` parameter, for each `_target_` of ours."""
    module, data = str(config.module._target_), str(config.data._target_)
    # Two keys stand outside of the group that they are passed with: see runs/build.py.
    for key, target in (("test_tta", module), ("augmentation.pipeline", data)):
        check_choice(key, OmegaConf.select(config, key), parameter_choices(target).get(key.rpartition(".")[2]))
    for prefix, node in targets(plain_or_raw(config)):
        for name, valid in parameter_choices(str(node["_target_"])).items():
            if name in node:
                check_choice(f"{prefix}{name}", OmegaConf.select(config, f"{prefix}{name}"), valid)


def check_choice(key: str, value: Any, valid: tuple[Any, ...] | None) -> None:
    if valid is not None and value not in valid:
        raise UserError(f"{key}={value}: must be one of {', '.join('null' if v is None else str(v) for v in valid)}")


def targets(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, with the prefix of its keys; Hydra's own are left out."""
    for name, node in tree.items():
        if isinstance(node, dict) and (prefix or name != "hydra"):
            if "_target_" in node:
                yield f"{prefix}{name}.", node
            yield from targets(node, f"{prefix}{name}.")


def check_types(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise UserError for an override of another type than the default; keys added with `+` may have any type."""
    # Hydra checks its own keys, and some of their values (such as a job's number) exist only within a job.
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
    except (OmegaConfBaseException, ValueError):  # a path that exists only within a job
        return ""


def kind(value: Any) -> str:
    if OmegaConf.is_list(value):
        return "a list"
    if OmegaConf.is_dict(value):
        return "a mapping"
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[type(value)]


def same_kind(before: Any, after: Any) -> bool:
    if kind(before) in ("a number", "text"):  # 1 may stand for 1.0, and any scalar may be text
        return kind(after) not in ("a list", "a mapping", "text" if kind(before) == "a number" else "")
    # Many of a network's numbers may be one for all layers, or a list with one for each.
    return kind(before) == kind(after) or {kind(before), kind(after)} == {"an integer", "a list"}


def check_split(config: DictConfig) -> None:
    data, total = config.data, training_images(config)
    sizes = SETS[data.name].image_sizes if data.get("name") in SETS else ()
    if sizes and data.get("image_size") is not None:
        check_choice("data.image_size", data.image_size, sizes)
    if total is None:
        return
    val = validation_images(config, total)
    if val >= total:
        raise UserError(f"data.val_size={data.val_size}: {data.name} has only {total:,} training images")
    if data.get("folds") and data.fold >= data.folds:
        raise UserError(f"data.fold={data.fold}: with data.folds={data.folds} it must be from 0 to {data.folds - 1}")
    images = training_split_size(config)
    if images is not None and images > total - val:
        raise UserError(f"data.train_size={data.train_size}: the training split has only {total - val:,} images")
    if images is not None and data.batch_size > images:
        raise UserError(f"data.batch_size={data.batch_size}: the training split has only {images:,} images")
