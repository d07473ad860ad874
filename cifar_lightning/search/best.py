"""Write the best config of a search as an `experiment` file: the choices of groups, and changed values."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config.compose import compose
from cifar_lightning.config.keys import decides

GROUPS = ("data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "callbacks")


def trained(config: DictConfig) -> dict[str, Any]:
    """The keys of a config that decide the result, in plain containers; interpolations are kept."""

    def kept(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in tree.items()
            if decides(f"{prefix}{key}").what == "result" and f"{prefix}{key}" not in ("train", "test")
        }

    return kept(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The new value of each key that differs; null for a key that was removed."""
    changed: dict[str, Any] = {}
    for key in dict.fromkeys([*now, *before]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if below := difference(old, new):
                changed[key] = below
        elif old != new or key not in before:
            changed[key] = new
    return changed


def experiment(config: DictConfig, comments: Sequence[str]) -> str:
    """The text of an experiment file that composes to `config`, but for where it runs and whether it tests.

    config: from `api.compose`.
    """
    chosen = {group: config.choices[group] for group in GROUPS if config.choices.get(group) is not None}
    if chosen.get("callbacks") in ("default", "none"):  # without any, nobody would get a checkpoint of the best
        del chosen["callbacks"]
    changed = difference(trained(compose([f"{group}={name}" for group, name in chosen.items()])), trained(config))
    if "callbacks" not in chosen:
        changed.pop("callbacks", None)
    lines = ["# @package _global_", *(f"# {comment}" for comment in comments), "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in chosen.items()]
    return "\n".join(lines) + "\n" + (OmegaConf.to_yaml(OmegaConf.create(changed)) if changed else "")
