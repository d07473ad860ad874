"""Note a look at test labels in the ledger, and keep a sealed test set closed."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cifar_lightning.config.identity import setting
from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError
from cifar_lightning.reporting import ledger


def note_look(
    file: Path,
    config: Mapping[str, Any],
    datamodule: Any,
    *,
    command: str,
    run: Path,
    images: int | None = None,
    unseal: str | None = None,
) -> dict[str, Any]:
    """Note a look at `images` (by default all) of the test set by the network of this config, before it is taken.

    run: the folder or file whose network it is. unseal: why the sealed test set is opened.
    Returns what the result records of it. Raises UserError where the ledger can't be written.
    """
    split = datamodule.test
    look = {
        "command": command,
        "run": named(run, file),
        "setting": setting(OmegaConf.create(dict(config))),
        "data": datamodule.name,
        "test_checksum": checksum(split),
        "split": "test",
        "images": len(split) if images is None else images,
    }
    line = ledger.note(file, look | ({"unseal": unseal} if unseal else {}))
    return {"test_checksum": line["test_checksum"], "test_look": line["hash"]}


def check_seal(config: Mapping[str, Any], file: Path, run: Path, unseal: str | None = None) -> None:
    """Raise UserError if the run's test set is sealed and nobody has given a reason to open it, now or before."""
    sealed = bool(config["data"].get("sealed"))
    if unseal and not sealed:
        raise UserError(f"unseal={unseal}: the test set of this run is not sealed (data.sealed=true); leave it out")
    if sealed and not unseal and not ledger.is_unsealed(file, named(run, file)):
        raise UserError(
            "this run's test set is sealed (data.sealed=true). To open it for this run, once and for all: evaluate "
            f"ckpt_path={run} unseal='why', which goes into {file}"
        )


def named(run: Path, file: Path) -> str:
    """The run as the ledger names it: relative to the ledger, so that both may be moved together."""
    return Path(os.path.relpath(run.absolute(), file.absolute().parent)).as_posix()


def checksum(split: Any) -> str | None:
    """First 16 hex digits of the SHA-256 over images and labels; None for data of the user's own kind."""
    if not isinstance(split, Split):
        return None
    digest = hashlib.sha256()
    for tensor in (split.images, split.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
