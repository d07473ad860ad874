"""The folder of a sweep's job: found again by what the job is, not by its number, which shifts as a sweep grows."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_text, read_yaml, write_text

LONGEST = 100  # characters of a name
IDENTITY = ".job"  # the file that says whose folder it is
HERE = "<folder>"  # stands for the job's own folder, which may have been moved


def job_name(overrides: Sequence[str], swept: Sequence[str] = ()) -> str:
    """A folder's name for what is swept (of a single job: for all that matters): `activation=relu,seed=1`.

    Where it is too long, or has characters that a name can't have, it ends in a hash.
    """

    def belongs(override: str) -> bool:
        name = override.lstrip("+~")
        return name.partition("=")[0] in swept if swept else decides(name).named

    exact = ",".join(filter(belongs, overrides))
    readable = re.sub(r"[^\w=.,+~-]+", "-", re.sub(r"[\[\]{}'\" ]", "", exact)).strip("-,")
    if len(readable) <= LONGEST and readable == exact.replace("/", "-"):
        return readable or "default"
    return f"{readable[: LONGEST - 9].rstrip('-,')}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def job_folder(*swept: str, _root_: DictConfig) -> str:
    """The name of the folder, in the sweep's, for the job that `_root_` configures."""
    return folder_for(Path(_root_.hydra.sweep.dir), job_name(list(_root_.hydra.overrides.task), swept), _root_)


def folder_for(sweep: Path, name: str, config: DictConfig) -> str:
    """The name of the folder of an earlier job with the same config, whatever its name and number.

    Else a new one: where a job of another config has `name`, the next free number is appended.
    """
    ours = digest(config)
    known = {path.parent.name: _identity(path) for path in sweep.glob(f"*/{IDENTITY}")}
    same = [folder for folder, identity in known.items() if identity == ours]
    numbered = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return min(same) if same else next(folder for folder in numbered if folder not in known)


def digest(config: DictConfig) -> str:
    """Equal for jobs that train the same."""
    return hashlib.sha256(json.dumps(comparable(config), sort_keys=True).encode()).hexdigest()


def identify(folder: Path, config: DictConfig) -> None:
    """Say in the folder whose it is. Raises UserError where it is another job's."""
    ours, file = digest(config), folder / IDENTITY
    if file.exists() and _identity(file) != ours:
        changed = ", ".join(differences(folder, config)) or "more than its config"
        raise UserError(f"{folder} has a job with {changed}: give a hydra.sweep.subdir that tells the jobs apart")
    write_text(file, ours)


def differences(folder: Path, config: DictConfig) -> list[str]:
    """What another config of the same name has, key by key: `trainer.max_epochs=5 (now 10)`."""
    try:
        saved, ours = comparable(OmegaConf.create(read_yaml(folder / "config.yaml"))), comparable(config)
    except (OSError, ValueError, AttributeError, UserError, OmegaConfBaseException):  # missing, cut short, or not ours
        return []
    keys = sorted(key for key in {*saved, *ours} if saved.get(key) != ours.get(key))
    return [f"{key}={saved.get(key)} (now {ours.get(key)})" for key in keys]


def comparable(config: Any) -> dict[str, Any]:
    """The config resolved and flat, as far as it decides what is trained: equal for equal jobs."""
    tree = OmegaConf.masked_copy(config, [key for key in config if decides(key).compared or key == "paths"])
    if OmegaConf.is_interpolation(tree.paths, "output_dir"):  # before Hydra has made the folder
        tree.paths.output_dir = HERE
    own = str(tree.paths.output_dir)
    flat = dict(_flattened(json.loads(json.dumps(OmegaConf.to_container(tree, resolve=True), default=str))))
    flat = {key: _moved(value, own) for key, value in flat.items() if decides(key).compared}
    if str(flat.get("ckpt_path")).startswith(HERE):  # it went on from its own checkpoint
        flat["ckpt_path"] = None
    return flat


def _identity(file: Path) -> str:
    return read_text(file)


def _moved(value: Any, own: str) -> Any:
    return HERE + value[len(own) :] if isinstance(value, str) and f"{value}/".startswith(f"{own}/") else value


def _flattened(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
