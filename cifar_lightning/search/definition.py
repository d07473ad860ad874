"""What a search is: a file of conf/hparams_search (or a person's own) and what was typed, checked.

Needs neither Optuna nor torch, so that a mistake is answered before they are imported.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import conf_dir
from cifar_lightning.config.hints import choices
from cifar_lightning.config.rules import Rule, choice, integer, optional
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.search.space import Parameter, corners, overrides, read_space

PRUNERS = ("median", "hyperband", "none")
OWN = ("ckpt_path", "train=", "optimized_metric", "hydra.", "hydra/", "paths.output_dir")  # what the search decides
QUIET = ("++callbacks.progress_bar=null", "++callbacks.model_summary=null")  # a line a trial is enough
TEXT = Rule(lambda v: type(v) is str and v != "", "a text")
SETTINGS: dict[str, tuple[Any, Rule]] = {
    "study_name": (None, optional(Rule(lambda v: bool(re.fullmatch(r"[\w.-]+", str(v))), "letters, digits, _ . -"))),
    "n_trials": (30, integer(1)),
    "pruner": ("median", choice(*PRUNERS)),
    "storage": (None, optional(TEXT)),
    "sampler_seed": (0, integer(0)),
    "startup_trials": (10, integer(0)),
}


@dataclass(frozen=True)
class Search:
    """A search that can start. `overrides` are the same in all trials; `config` is what they compose to."""

    study_name: str
    n_trials: int
    pruner: str
    storage: str | None
    sampler_seed: int
    startup_trials: int
    overrides: tuple[str, ...]
    space: tuple[Parameter, ...]
    config: DictConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.paths.log_dir).absolute() / self.config.task_name / self.study_name


def read_search(name: str, settings: Mapping[str, str | None], typed: Sequence[str]) -> Search:
    """The search `name`, with `settings` (texts) in the place of the file's and `typed` overrides after its own.

    Raises UserError for whatever is wrong with any of them.
    """
    path = search_file(name)
    content = read_yaml(path)
    for key in content:
        if key not in (*SETTINGS, "overrides", "space"):
            raise UserError(f"{path}: there is no key {key}{nearest(str(key), [*SETTINGS, 'overrides', 'space'])}")
    chosen = {key: content.get(key, default) for key, (default, _) in SETTINGS.items()}
    for key, text in settings.items():
        if text is not None:
            chosen[key] = int(text) if re.fullmatch(r"-?\d+", text) and key != "study_name" else text
    for key, (_, rule) in SETTINGS.items():
        if not rule.admits(chosen[key]):
            raise UserError(f"{key}={chosen[key]}: must be {rule.words}")
    space = read_space(content.get("space"))
    fixed = fixed_overrides(content.get("overrides") or [], typed, {parameter.key for parameter in space})
    config = check(space, fixed)
    return Search(
        **{**chosen, "study_name": str(chosen["study_name"] or path.stem)},
        overrides=tuple(fixed),
        space=space,
        config=config,
    )


def search_file(name: str) -> Path:
    own = Path(name).expanduser()
    if own.suffix in (".yaml", ".yml"):
        if not own.is_file():
            raise UserError(f"hparams_search={name}: there is no such file")
        return own
    path = conf_dir() / "hparams_search" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"hparams_search={name}: there is no such choice{nearest(name, choices('hparams_search'))}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a mapping with the key space")
    return {str(key): value for key, value in content.items()}


def fixed_overrides(own: Any, typed: Sequence[str], searched: set[str]) -> list[str]:
    """The overrides of every trial; what was typed comes in the place of the file's own, and the test set is shut off.

    Raises UserError for what a search can't have.
    """
    if not isinstance(own, list) or not all(isinstance(override, str) for override in own):
        raise UserError("overrides: must be a list of overrides such as trainer.max_epochs=10")
    for override in [*own, *typed]:
        key, _, value = override.lstrip("+~").partition("=")
        if key in searched:
            raise UserError(f"{override}: {key} is searched over; leave it out, or take it out of the space")
        if key == "test" and value.lower() not in ("false", "0", "no", "off"):
            raise UserError(f"{override}: test data play no part in a search; train the best config afterwards")
        if key in ("ckpt_path", "train", "optimized_metric") or key.startswith(
            ("hydra.", "hydra/", "paths.output_dir")
        ):
            raise UserError(f"{override}: a search decides that itself; leave it out")
    names = {override.partition("=")[0] for override in typed}
    kept = [override for override in own if override.partition("=")[0] not in names]
    task = [] if "task_name" in names else ["task_name=search"]
    return [*task, *(o for o in [*kept, *typed] if o.partition("=")[0] != "test"), "test=false", *QUIET]


def check(space: Sequence[Parameter], fixed: Sequence[str]) -> DictConfig:
    """Compose every corner of the space; returns what the overrides of all trials compose to alone.

    Raises UserError for a key that there isn't, a value that it does not admit, or a search without validation part.
    """
    config = None
    for point in corners(space):
        try:
            config = compose_checked([*fixed, *overrides(point)])
        except UserError as error:
            raise UserError(misread(fixed) or str(error)) from None
        if config.data.val_size == 0:
            raise UserError("data.val_size=0: a search compares by validation accuracy; leave a validation part")
    return compose_checked(fixed)


def misread(fixed: Sequence[str]) -> str | None:
    """What to say of a word that is near to a key of the command, and was taken for one of the config."""
    for override in fixed:
        key = override.partition("=")[0]
        near = difflib.get_close_matches(key, [*SETTINGS, "hparams_search"], n=1, cutoff=0.8)
        if near:
            return f"there is no key {key}; did you mean {near[0]}?"
    return None
