"""What a run is: how its config differs from the defaults, or from those of the recipe that it names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lightning.config.compose import compose, plain
from cifar_lightning.config.keys import decides

# Chosen by name, and told by the keys that they set.
TOLD_BY_THEIR_KEYS = ("experiment", "debug")
PARTLY = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches", "fast_dev_run")


def differences(config: DictConfig, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that make this resolved config out of the defaults: `experiment=…` first, then groups, then keys.

    So a run that was stopped is called what it was called when it began, whatever was typed to go on with it.
    typed: the answer where the config can't be composed from here, as it names files of the user's own.
    """
    choices = plain(config.get("choices") or {})
    named = [f"experiment={choices['experiment']}"] if choices.get("experiment") else []
    try:
        reference = compose(named, return_hydra_config=True)
        usual = plain(reference.hydra.runtime.choices)
        groups = [
            f"{group}={choice}" for group, choice in choices.items() if is_told(group) and usual.get(group) != choice
        ]
        expected = dict(leaves(compose([*named, *groups])))
    except (HydraException, OmegaConfBaseException):
        return list(typed)
    found = dict(leaves(config))
    changed = [f"{key}={written(value)}" for key, value in found.items() if value != expected.get(key)]
    return [*named, *groups, *changed]


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every key with its value, as far as it can be known outside of a job."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and value:
                yield from walk(value, f"{key}.")
            elif is_told(key):
                try:
                    resolved = plain(OmegaConf.select(config, key))
                except (OmegaConfBaseException, ValueError):
                    continue
                yield from walk(resolved, f"{key}.") if isinstance(resolved, dict) and resolved else [(key, resolved)]

    yield from walk(OmegaConf.to_container(config, resolve=False), "")  # type: ignore[arg-type]


def is_told(key: str) -> bool:
    """Whether a run is called after this key: it does not say where the run takes place."""
    name = key.replace("/", ".")
    return (
        decides(name).what != "place"
        and name not in TOLD_BY_THEIR_KEYS
        and not name.endswith((".dirpath", ".save_dir"))
    )


def written(value: Any) -> str:
    """A value as an override says it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).replace(" ", "") if isinstance(value, list | dict) else str(value)


def is_partial(config: DictConfig) -> bool:
    """Whether this is a trial run, over a part of the data: no result to stand beside others."""
    for limit in (config.trainer.get(key) for key in PARTLY):
        if limit is True or (type(limit) is int and limit > 0) or (type(limit) is float and 0 < limit < 1):
            return True
    return False
