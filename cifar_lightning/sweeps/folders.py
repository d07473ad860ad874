"""Find the folder of a sweep's job by the job's config; its number changes when a sweep grows."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_text, write_text
from cifar_lightning.runs.resume import flattened

LONGEST = 100  # characters of a name
IDENTITY = ".job"  # the file in a job's folder that holds the digest of its config
HERE = "<folder>"  # stands for the job's own folder, which may be moved


def job_name(overrides: Sequence[str], swept: Sequence[str] = ()) -> str:
    """A folder's name made of the swept overrides (without a sweep, of all that matter): `activation=relu,seed=1`.

    A name that is too long, or loses characters that a name can't have, ends in a hash.
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
    """OmegaConf's resolver `${job_folder:…}`: the name of the job's folder in the sweep's."""
    return folder_for(Path(_root_.hydra.sweep.dir), job_name(list(_root_.hydra.overrides.task), swept), _root_)


def folder_for(sweep: Path, name: str, config: DictConfig) -> str:
    """The name of the folder that an earlier job with the same config has, whatever its name, else a new one.

    If a job with another config has `name`, the next free number is appended.
    """
    ours = digest(config)
    known = {path.parent.name: read_text(path) for path in sweep.glob(f"*/{IDENTITY}")}
    same = [folder for folder, identity in known.items() if identity == ours]
    numbered = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return min(same) if same else next(folder for folder in numbered if folder not in known)


def identify(folder: Path, config: DictConfig) -> None:
    """Write the job's identity into its folder. Raises UserError if the folder is another job's."""
    ours, file = digest(config), folder / IDENTITY
    if file.exists() and read_text(file) != ours:
        raise UserError(f"{folder} holds a job with another config: set hydra.sweep.subdir to tell the jobs apart")
    write_text(file, ours)


def digest(config: DictConfig) -> str:
    """A hash that is equal for jobs that train the same: of the config's resolved keys that decide it."""
    tree = OmegaConf.masked_copy(config, [key for key in map(str, config) if decides(key).compared or key == "paths"])
    if OmegaConf.is_interpolation(tree.paths, "output_dir"):  # before Hydra has made the folder
        tree.paths.output_dir = HERE
    own = str(tree.paths.output_dir)
    leaves = flattened(json.loads(json.dumps(OmegaConf.to_container(tree, resolve=True), default=str)))
    kept = {key: _moved(value, own) for key, value in leaves if decides(key).compared}
    if str(kept.get("ckpt_path")).startswith(HERE):  # the job resumed from its own checkpoint
        kept["ckpt_path"] = None
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _moved(value: Any, own: str) -> Any:
    return HERE + value[len(own) :] if isinstance(value, str) and f"{value}/".startswith(f"{own}/") else value
