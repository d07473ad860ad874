"""Make networks of timm by name, with their weights for ImageNet.

timm is an extra. It and torch are imported where they are needed, so that a command's help takes no seconds.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from cifar_lightning.errors import UserError, first_line, nearest

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

LISTS = "`python -m cifar_lightning models timm=WORD` lists those whose names have the word"
# What a key of ours is to timm.
KEYS = {"drop_path_rate": "model.stochastic_depth", "drop_rate": "model.dropout", "patch_size": "model.stem=cifar"}


def architectures() -> list[str]:
    """The names of timm's networks. Raises UserError if the package is not installed."""
    if find_spec("timm") is None:
        raise UserError("model=timm needs the package timm: pip install 'cifar-lightning[timm]'")
    import timm

    return list(timm.list_models())


def check_name(name: str) -> None:
    """Raise UserError, with the nearest name, unless timm has this network (`vit_tiny_patch16_224`).

    A name may end with the tag of certain weights (`resnet18.tv_in1k`).
    """
    known = architectures()
    import timm

    architecture, _, tag = name.partition(".")
    if architecture not in known:
        near = nearest(architecture, known)
        raise UserError(f"model.name={name}: timm has no such network{near if near[0] == ';' else f'. {LISTS}'}")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        known_tags = f"{nearest(name, tagged)}" if tagged else ""
        raise UserError(f"model.name={name}: timm has no such weights of {architecture}{known_tags}")


def weights_of(name: str) -> "PretrainedCfg":
    """What timm knows of the weights that the name stands for: where they are, for which images; empty if none are."""
    import timm

    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def create(name: str, size: int | None, **keys: Any) -> Any:
    """The network, for images of `size` px if it is made for one size; None: for the size of its weights.

    Raises UserError if the network does not take one of the keys.
    """
    import timm

    if size is not None and weights_of(name).fixed_input_size:
        keys["img_size"] = size
    try:
        network = timm.create_model(name, **keys)
    except TypeError as error:
        refused = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(error))
        if not refused:
            raise
        key = KEYS.get(refused[1], refused[1])
        raise UserError(f"{key}: timm's {name} does not take it; leave it out") from error
    except (AssertionError, ValueError) as error:
        given = f"model.image_size={size}" if size else f"model.name={name}"
        raise UserError(f"{given}: timm's {name} can't be built so: {first_line(error)}") from error
    if not hasattr(network, "reset_classifier"):
        raise UserError(f"model.name={name}: this network is no classifier; choose another")
    return network


def with_weights(name: str, source: bool | str, size: int, keys: Mapping[str, Any]) -> Any:
    """The network with timm's weights, or with those of the file `source`, and the head that belongs to them.

    timm's weights come from its cache, that of the package huggingface_hub, or are downloaded to it. Raises UserError,
    with what to do, if there are none, they can't be downloaded, or those of the file don't fit.
    """
    cfg = weights_of(name)
    if source is True and not cfg.has_weights:
        raise UserError(f"model.pretrained=true: timm has no weights of {name}; give a file, model.pretrained=FILE")
    file = _cached(cfg) if source is True else str(source)
    overlay: dict[str, Any] = {}
    if file:
        state = _read(Path(file).expanduser())
        head = cfg.classifier[0] if isinstance(cfg.classifier, tuple | list) else cfg.classifier
        classes = len(state[f"{head}.weight"]) if f"{head}.weight" in state else cfg.num_classes
        overlay = {"state_dict": state, "num_classes": classes, "custom_load": False}
        keys = {**keys, "num_classes": classes}
    try:
        if not file and cfg.hf_hub_id:
            _check_connection()
        return create(name, size, pretrained=True, pretrained_cfg_overlay=overlay, **keys)
    except UserError:
        raise
    except Exception as error:  # of loading, of huggingface_hub, or of its HTTP client
        if file:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"model.pretrained={file} does not fit {name}: {reason}") from error
        raise UserError(
            f"can't download the weights of timm's {name} ({first_line(error)[:120]}): get model.safetensors from "
            f"https://huggingface.co/{cfg.hf_hub_id} in another way and give it, model.pretrained=FILE"
        ) from error


def _cached(cfg: "PretrainedCfg") -> str | None:
    """The file of these weights in huggingface_hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = (cfg.hf_hub_id or "").partition("@")
    for file in [cfg.hf_hub_filename] if cfg.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]:
        if repository and isinstance(path := try_to_load_from_cache(repository, file, revision=revision or None), str):
            return path
    return None


def _check_connection() -> None:
    """Raise OSError if the server can't be reached: huggingface_hub itself tries for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set, and they are not in the cache")
    urlopen(constants.ENDPOINT, timeout=10).close()


def _read(path: Path) -> dict[str, Any]:
    from timm.models import load_state_dict
    from torch import Tensor

    if not path.is_file():
        raise UserError(f"model.pretrained={path}: there is no such file; give one with weights of timm's network")
    try:
        state = load_state_dict(str(path), weights_only=True)
        if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("no dictionary of tensors")
        return dict(state)
    except Exception as error:  # whatever a foreign file makes of torch, pickle or safetensors
        raise UserError(f"model.pretrained={path} is not a file of weights ({first_line(error)[:120]})") from error
