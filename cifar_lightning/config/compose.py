"""Compose configs and instantiate objects from them with Hydra.

Imports neither torch nor lightning, so that a mistake in a config is reported before they are loaded.
"""

import datetime
import difflib
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lightning.config.keys import PATHS, decides
from cifar_lightning.errors import UserError, first_line


def conf_dir() -> Path:
    """The folder of config groups: inside the package in a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def overridden(overrides: Sequence[str]) -> str:
    """A folder name from the overrides: `model=resnet,optimizer.lr=0.1`, or `default`.

    Swept keys come first. At most 100 characters, cut between overrides where possible.
    """
    named = [o for o in overrides if decides(o).named]
    words = [
        re.sub(r"[^\w=.,+~-]+", "-", re.sub(r"[\[\]{}'\" ]", "", override)).strip("-,")
        for override in sorted(named, key=lambda override: not re.search(r"=[^\[{'\"]*(,|\w\()", override))
    ]
    fitting = itertools.takewhile(lambda name: len(name) <= 100, itertools.accumulate(words, "{},{}".format))
    return (list(fitting) or [",".join(words)[:100].strip("-,")])[-1] or "default"


def claim_folder(path: str) -> str:
    """Create the folder `path`, or `path-2`, `path-3`, … if it exists, so that two runs never share one."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    n, candidate = 1, path
    while True:
        try:
            os.mkdir(candidate)
            return candidate
        except FileExistsError:
            n += 1
            candidate = f"{path}-{n}"


def run_folder(parent: str, what: str) -> str:
    return claim_folder(f"{parent}/{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{what}")


def best_is(metric: str) -> Literal["min", "max"]:
    """Whether a lower or a higher value of this metric is better."""
    return "min" if any(word in metric.lower() for word in ("loss", "err")) else "max"


def register_resolvers() -> None:
    """Register `${run_folder:…}`, `${overridden:…}` and `${best_is:…}` with OmegaConf."""
    # Cached, because Hydra resolves hydra.run.dir more than once, and passes the cache to the jobs of a sweep.
    OmegaConf.register_new_resolver("run_folder", run_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("best_is", best_is, replace=True)
    OmegaConf.register_new_resolver("overridden", overridden, replace=True)


def compose(overrides: Sequence[str] = (), *, return_hydra_config: bool = False) -> DictConfig:
    """The config for these command-line overrides. Raises Hydra's exceptions."""
    # A run composes several times, a sweep hundreds of times, each time in 0.2 s. Files of the user's own may change.
    own_files = any("searchpath" in override for override in overrides)
    composed = _composed.__wrapped__ if own_files else _composed
    config = deepcopy(composed(tuple(overrides)))
    if not return_hydra_config:
        with open_dict(config):
            del config["hydra"]
    return config


@lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=True)


def parse_overrides(overrides: Sequence[str]) -> list[Any]:
    """Hydra's `Override` objects. Raises hydra.errors.OverrideParseException."""
    return OverridesParser.create().parse_overrides(list(overrides))


def quoted(value: object) -> str:
    """The value quoted for use in an override, whatever its characters."""
    return "'" + str(value).replace("'", "\\'") + "'"


def spelled_out(overrides: Sequence[str]) -> list[str]:
    """The overrides with `teacher=RUN`, which is short for a key of that section, spelled out."""
    return [re.sub(r"^teacher=", "teacher.ckpt_path=", override) for override in overrides]


def quoted_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with paths quoted: the names of our folders contain `=` and `,`, which Hydra would parse."""
    arguments = [
        re.sub(r"^(--config-dir=|-cd=)(~.*)$", lambda m: m[1] + os.path.expanduser(m[2]), a) for a in arguments
    ]
    return [
        re.sub(rf"^({PATHS})=([^'\"\[].*)$", lambda m: f"{m[1]}={quoted(os.path.expanduser(m[2]))}", a)
        for a in spelled_out(arguments)
    ]


def group_choices() -> dict[str, str]:
    """The choice of each group in the current job, as `{"model": "resnet", …}`; empty outside of a job."""
    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def plain(config: Any) -> Any:
    """The config as plain containers with every interpolation resolved, as checkpoints and files store it."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def near_target(target: str) -> str:
    """`; did you mean …?` for a class that its module does not have, such as `torch.optim.adagrad`."""
    module, _, name = target.rpartition(".")
    classes = {
        key.lower(): key for key, value in vars(sys.modules.get(module, difflib)).items() if isinstance(value, type)
    }
    close = difflib.get_close_matches(name.lower(), classes, n=1, cutoff=0.7)
    return f"; did you mean {classes[close[0]]}?" if close and name not in classes.values() else ""


def instantiate(mapping: Mapping[str, Any], **kwargs: Any) -> Any:
    """Build the object that `_target_` names from the other keys.

    Raises UserError with the target and the reason if it can't be built.
    """
    try:
        return hydra.utils.instantiate(mapping, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
        near = near_target(str(mapping.get("_target_")))
    if isinstance(cause, UserError):  # outside of the handler, where it would become the cause of its own cause
        raise cause
    raise UserError(f"can't build {mapping.get('_target_')}: {first_line(cause)}{near}") from cause
