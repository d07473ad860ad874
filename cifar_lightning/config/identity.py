"""Identify a run by how its config differs from the defaults, or from the experiment that it is based on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lightning.config.compose import compose, plain
from cifar_lightning.config.keys import decides

# Chosen by name, but identified by the keys that they set.
BY_THEIR_KEYS = ("experiment", "debug")
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches", "fast_dev_run")


def differences(config: DictConfig, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that turn the defaults into this resolved config: `experiment=…` first, then groups, then keys.

    A resumed run therefore keeps its name, whatever was typed to resume it.
    typed: returned as it is if the config can't be composed here because it uses the user's own config files.
    """
    choices = plain(config.get("choices") or {})
    named = [f"experiment={choices['experiment']}"] if choices.get("experiment") else []
    try:
        reference = compose(named, return_hydra_config=True)
        usual = plain(reference.hydra.runtime.choices)
        groups = [
            f"{group}={choice}" for group, choice in choices.items() if identifies(group) and usual.get(group) != choice
        ]
        expected = dict(leaves(compose([*named, *groups])))
    except (HydraException, OmegaConfBaseException):
        return list(typed)
    found = dict(leaves(config))
    changed = [f"{key}={written(value)}" for key, value in found.items() if value != expected.get(key)]
    return [*named, *groups, *changed]


def setting(config: DictConfig, typed: Sequence[str] = ()) -> str:
    """What is trained and tested, in words that are the same for all seeds: `data=digits model=cnn2`, or `defaults`."""
    words = [o for o in differences(config, typed) if o.startswith("experiment=") or not decides(o).folds]
    return " ".join(words) or "defaults"


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every key with its value, except for values that exist only within a job."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and value:
                yield from walk(value, f"{key}.")
            elif identifies(key):
                try:
                    resolved = plain(OmegaConf.select(config, key))
                except (OmegaConfBaseException, ValueError):
                    continue
                yield from walk(resolved, f"{key}.") if isinstance(resolved, dict) and resolved else [(key, resolved)]

    yield from walk(OmegaConf.to_container(config, resolve=False), "")  # type: ignore[arg-type]


def identifies(key: str) -> bool:
    """Whether this key is part of a run's identity, unlike paths and loggers."""
    name = key.replace("/", ".")
    return decides(name).what != "place" and name not in BY_THEIR_KEYS and not name.endswith((".dirpath", ".save_dir"))


def written(value: Any) -> str:
    """A value as it is written in an override."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).replace(" ", "") if isinstance(value, list | dict) else str(value)


def is_partial(config: DictConfig) -> bool:
    """Whether this run used a subset of the batches, so that its result can't be compared with others."""
    for limit in (config.trainer.get(key) for key in LIMITS):
        if limit is True or (type(limit) is int and limit > 0) or (type(limit) is float and 0 < limit < 1):
            return True
    return False
