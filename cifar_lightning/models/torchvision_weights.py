"""Load torchvision's ImageNet weights into a network with another head."""

import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision.models
from torch import nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.torchvision_families import Family


def load_pretrained(
    network: nn.Module, name: str, family: Family, new: Collection[nn.Module], file: Path | None = None
) -> None:
    """Load the weights of the classifier `name` into all of `network` except the modules in `new`.

    They come from `file`, else from torch's cache ($TORCH_HOME/hub/checkpoints), or are downloaded to it. Raises
    UserError, with the file to put there, if none is possible, or if the file does not hold these weights.
    """
    versions = torchvision.models.get_model_weights(name)
    weights = versions.DEFAULT
    if family.exact_size:
        weights = next(v for v in versions if v.meta["min_size"] == (family.made_for, family.made_for))
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)

    state = _read(weights, path) if file is None else _read_file(file)
    kept = {id(tensor) for module in new for tensor in module.state_dict(keep_vars=True).values()}
    wanted = {key for key, tensor in network.state_dict(keep_vars=True).items() if id(tensor) not in kept}
    for key in list(state):  # in place, as the dictionary also carries the versions of its layers
        tensor = state.pop(key)
        # DenseNet's weights have dots in names (torchvision/models/densenet.py, _load_state_dict).
        renamed = re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])", r"\1\2", key)
        if renamed in wanted:
            state[renamed] = tensor
    try:
        missing = sorted(wanted.intersection(network.load_state_dict(state, strict=False).missing_keys))
        if missing:
            raise RuntimeError(f"{missing[0]} is missing")
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        if file is not None:
            raise UserError(f"model.pretrained={file} does not hold weights of {name} ({reason})") from error
        raise UserError(f"{path} does not hold the weights of {name} ({reason}): delete it and run again") from error


def _read_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"model.pretrained={file}: there is no such file; give one with torchvision's weights")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"{type(state).__name__} instead of a dictionary")
        return state
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"model.pretrained={file} is not a file of weights") from error


def _read(weights: Any, path: Path) -> dict[str, Any]:
    try:
        state = weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"{type(state).__name__} instead of a dictionary")
        return state
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if path.exists():
            raise UserError(f"{path} is not a file of weights: delete it and run again to download it") from error
        raise UserError(f"can't download {weights.url} ({error}): put that file at {path} and run again") from error
