"""The best config of a search as an `experiment` file: the groups' choices, and what differs from their files."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config.compose import compose
from cifar_lightning.config.keys import decides

GROUPS = ("data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "callbacks")


def portable(config: DictConfig) -> dict[str, Any]:
    """What is trained, in plain containers, interpolations as they are written."""
    content: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    return _without(content, "")


def _without(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept = {}
    for key, value in content.items():
        if decides(f"{prefix}{key}").what == "result" and key not in ("train", "test"):  # a search does not test
            kept[str(key)] = _without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
    return kept


def differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """The dotted keys at which two trees differ."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [prefix.rstrip(".")]
    keys = dict.fromkeys([*before, *now])
    return [d for key in keys for d in differences(before.get(key), now.get(key), f"{prefix}{key}.")]


def experiment(config: DictConfig, comments: list[str]) -> str:
    """The text of an experiment file that composes to `config`, but for where it runs and whether it tests.

    config: from `api.compose`. What was deleted from it (`~key`) is null in the file.
    """
    chosen = {group: config.choices[group] for group in GROUPS if config.choices.get(group) is not None}
    if chosen.get("callbacks") in ("default", "none"):  # without any, nobody would get a checkpoint of the best
        del chosen["callbacks"]
    base = portable(compose([f"{group}={name}" for group, name in chosen.items()]))
    changed = _changed(base, portable(config))
    if "callbacks" not in chosen:
        changed.pop("callbacks", None)
    lines = ["# @package _global_", *(f"# {comment}" for comment in comments), "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in chosen.items()]
    return "\n".join(lines) + "\n" + (OmegaConf.to_yaml(OmegaConf.create(changed)) if changed else "")


def _changed(base: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key in dict.fromkeys([*config, *base]):
        before, now = base.get(key), config.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            below = _changed(before, now)
            if below:
                changed[key] = below
        elif before != now or (key in config and key not in base):
            changed[key] = now
    return changed
