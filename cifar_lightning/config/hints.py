"""Suggest the key or choice that was meant by one that does not exist."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError

from cifar_lightning.config.compose import compose, conf_dir
from cifar_lightning.errors import causes, first_line, nearest
from cifar_lightning.models.torchvision_families import NAMES

# Names from other frameworks, and ours.
SAME_KEYS = {
    "modle": "model",
    "epochs": "trainer.max_epochs", "n_epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs",
    "data_dir": "data.root", "root": "data.root", "gpus": "trainer.devices", "workers": "data.num_workers",
    "learning_rate": "optimizer.lr", "batchsize": "data.batch_size", "resume": "ckpt_path", "checkpoint": "ckpt_path",
}  # fmt: skip
FROM_THE_DATA = ("model.num_classes", "model.in_channels", "model.input_size")
SAME_CHOICES = {
    "activation=swish": "activation=silu",
    "debug=default": "debug=fast",
    "logger=many_loggers": "logger=[tensorboard,csv]",
    "trainer=ddp_spawn": "trainer=ddp",
}
TORCH_OPTIMIZERS = ("Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "Rprop")


def explain(error: Exception, overrides: Sequence[Override]) -> str:
    """One line for one of Hydra's composition errors, with a suggestion."""
    yaml = next((cause for cause in causes(error) if isinstance(cause, MarkedYAMLError)), None)
    if yaml is not None and yaml.problem_mark is not None:
        return f"{yaml.problem_mark.name}, line {yaml.problem_mark.line + 1}: {yaml.problem}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        for override in overrides:  # a group may have sub-folders: experiment=classic/alexnet
            if f"{override.key_or_group}/{override.value()}" == error.missing_cfg_file:
                group, name = override.key_or_group, str(override.value())
        return f"{group}={name}: there is no such choice{other_choice(group, name, own_folders(overrides))}"
    if str(error).startswith("Config group override must"):
        for group in [o.key_or_group for o in overrides if is_group(o.key_or_group) and o.value() is None]:
            return f"{group}=null: choose a {group}{nearest('', choices(group))}"
    if str(error).startswith("Ambiguous value"):
        return f"{first_line(error)}: add -m for a sweep over the values, or write a list as key=[a,b]"
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown:
        return unknown_key(unknown.group(1), overrides)
    if str(error).startswith("Error merging override") and error.__cause__:
        return f"{error}: {first_line(error.__cause__)}"
    # Hydra wraps some errors, such as those in a config file, in an exception without a message.
    return " ".join((str(error).strip() or str(error.__cause__)).split())


def other_choice(group: str, name: str, own: Sequence[Path] = ()) -> str:
    """A suggestion of the choice that was meant, or a list of all choices."""
    if same := SAME_CHOICES.get(f"{group}={name}"):
        return f"; did you mean {same}?"
    if group == "model" and name.lower() in NAMES:
        return f"; did you mean model=torchvision model.name={name.lower()}?"
    for torchs in TORCH_OPTIMIZERS:
        if group == "optimizer" and name.lower() == torchs.lower():
            return f"; did you mean optimizer=torch optimizer.name={torchs}?"
    valid = sorted({choice for root in (conf_dir(), *own) for choice in choices(group, root)})
    if inside := [choice for choice in valid if choice.rpartition("/")[2] == name]:
        return f"; did you mean {group}={inside[0]}?"
    return nearest(name, valid)


def unknown_key(key: str, overrides: Sequence[Override]) -> str:
    if key == "hparams_search":
        return "hparams_search is a key of the search command: python -m cifar_lightning search hparams_search=…"
    groups = [o.input_line for o in overrides if is_group(o.key_or_group) and o.input_line]
    keys = all_keys(plain_or_raw(compose(groups, return_hydra_config=key.startswith("hydra."))))
    return f"there is no key {key} (to add your own: +{key}=…){other_key(key, keys)}"


def other_key(key: str, keys: Sequence[str]) -> str:
    """Suggest the key that was meant: a synonym, another prefix, another choice's key, or a similar spelling."""
    parent, _, last = key.rpartition(".")
    if key in FROM_THE_DATA:
        return "; it is set from the data set"
    if same := SAME_KEYS.get(last):
        return f"; did you mean {same}?"
    keys = [known for known in keys if not known.endswith("._target_") or "target" in last]
    if named := [k for k in keys if k.rpartition(".")[2] == last and not k.startswith(("callbacks.", "hydra."))]:
        return f"; did you mean {' or '.join(named[:3])}?"
    if elsewhere := [choice for choice, known in keys_of_choices() if known == (key if parent else f"model.{key}")]:
        return f"; it belongs to {', '.join(elsewhere[:5])}"
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    for candidates, cutoff in ((siblings, 0.6), (keys, 0.75)):
        by_name = {k.rpartition(".")[2]: k for k in reversed(candidates)}
        for name in difflib.get_close_matches(last, by_name, n=1, cutoff=cutoff):
            return f"; did you mean {by_name[name]}?"
    if parent and siblings:
        return f". Choose from: {', '.join(sorted(siblings))}"
    return ". All keys: python -m cifar_lightning --cfg job"


def keys_of_choices() -> Iterator[tuple[str, str]]:
    """Every top-level key of every group's config files, as (choice, key)."""
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group = path.parent.name
        for line in path.read_text(encoding="utf-8").splitlines():
            if group not in ("experiment", "hydra", "debug") and (found := re.match(r"(\w+):", line)):
                yield f"{group}={path.stem}", f"{group}.{found[1]}"


def is_group(name: str) -> bool:
    """Whether an override of this key chooses a config file, or adds a folder of them (--config-dir)."""
    return (conf_dir() / name).is_dir() or name == "hydra.searchpath"


def own_folders(overrides: Sequence[Override]) -> list[Path]:
    """The folders given by --config-dir."""
    found = [o.value() for o in overrides if o.key_or_group == "hydra.searchpath"]
    paths = [str(path) for value in found if isinstance(value, list) for path in value]
    return [Path(path.strip("'").removeprefix("file://")) for path in paths]


def choices(group: str, root: Path | None = None) -> list[str]:
    """The choices of a group, those in sub-folders as `folder/file`. `root`: a config folder other than ours."""
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
