"""Read and check the definition of a search: a file in conf/hparams_search or the user's own, and typed settings."""

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
from cifar_lightning.config.rules import TEXT, Rule, choice, integer, optional
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.search.space import Parameter, corners, overrides, read_space

PRUNERS = ("median", "hyperband", "none")
# Default and rule of each setting; a file may set it, and the command line overrides both.
SETTINGS: dict[str, tuple[Any, Rule]] = {
    "study_name": (None, optional(Rule(lambda v: bool(re.fullmatch(r"[\w.-]+", str(v))), "letters, digits, _ . -"))),
    "n_trials": (30, integer(1)),
    "pruner": ("median", choice(*PRUNERS)),
    "storage": (None, optional(TEXT)),
    "sampler_seed": (0, integer(0)),
    "startup_trials": (10, integer(0)),
}
KEYS = (*SETTINGS, "overrides", "space")
FORBIDDEN = r"(test|train|ckpt_path|optimized_metric|hydra[./].*|paths\.output_dir)"
QUIET = ("++callbacks.progress_bar=null", "++callbacks.model_summary=null")  # a line per trial is enough


@dataclass(frozen=True)
class Search:
    """A checked search. overrides: the same in all trials; config: composed from them."""

    study_name: str
    n_trials: int
    pruner: str
    storage: str | None
    sampler_seed: int
    startup_trials: int
    overrides: Sequence[str]
    space: Sequence[Parameter]
    config: DictConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.paths.log_dir).absolute() / self.config.task_name / self.study_name


def read_search(name: str, settings: Mapping[str, str], typed: Sequence[str]) -> Search:
    """The search `name`, with typed settings and overrides in place of its file's. Raises UserError."""
    path = search_file(name)
    content = read_content(path)
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: there is no key {key}{nearest(str(key), KEYS)}")
    given = {key: int(text) if text.isdigit() else text for key, text in settings.items()}
    chosen = {key: default for key, (default, _) in SETTINGS.items()} | content | given
    for key, (_, rule) in SETTINGS.items():
        if not rule.allows(chosen[key]):
            raise UserError(f"{key}={chosen[key]}: must be {rule.words}")
    chosen["study_name"] = str(settings.get("study_name") or chosen["study_name"] or path.stem)
    space = read_space(content.get("space"))
    fixed = fixed_overrides(content.get("overrides") or [], typed, {parameter.key for parameter in space})
    try:
        for point in corners(space):
            compose_checked([*fixed, *overrides(point)])
        config = compose_checked(fixed)
    except UserError:
        for key in (override.partition("=")[0] for override in typed):  # a setting that was taken for an override
            if near := difflib.get_close_matches(key, [*SETTINGS, "hparams_search"], n=1, cutoff=0.8):
                raise UserError(f"there is no key {key}; did you mean {near[0]}?") from None
        raise
    if config.data.val_size == 0:
        raise UserError("data.val_size=0: a search needs a validation split, as it compares validation accuracies")
    return Search(**chosen | {"overrides": fixed, "space": space, "config": config})


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


def read_content(path: Path) -> dict[str, Any]:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with the key space")
    return content


def fixed_overrides(own: Any, typed: Sequence[str], searched: set[str]) -> list[str]:
    """The overrides of every trial; typed ones replace the file's. Raises UserError for those a trial can't have."""
    if not isinstance(own, list) or not all(isinstance(override, str) for override in own):
        raise UserError("overrides: must be a list of overrides such as trainer.max_epochs=10")
    for override in [*own, *typed]:
        key = override.lstrip("+~").partition("=")[0]
        if key in searched:
            raise UserError(f"{override}: {key} is searched over; leave it out, or take it out of the space")
        if override != "test=false" and re.fullmatch(FORBIDDEN, key):
            raise UserError(f"{override}: leave it out; a trial trains from scratch in its own folder, without a test")
    names = {override.partition("=")[0] for override in typed}
    kept = [override for override in own if override.partition("=")[0] not in names]
    task = [] if "task_name" in names else ["task_name=search"]
    return [*task, *(o for o in [*kept, *typed] if o != "test=false"), "test=false", *QUIET]
