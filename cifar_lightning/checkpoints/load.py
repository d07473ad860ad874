"""Load a network, and the data that it was trained on, from a checkpoint file alone.

A checkpoint may come from anyone: it is read as plain data, and trust.py decides which classes of its config are built.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.checkpoints.trust import admitted, check_section
from cifar_lightning.config.compose import instantiate
from cifar_lightning.data.arrays import Source
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.own import adopted
from cifar_lightning.data.sets import SETS
from cifar_lightning.data.variants import Variants
from cifar_lightning.errors import UserError
from cifar_lightning.training.classifier import ImageClassifier

MAX_CLASSES = 1_000
# The keys that determine the images of a split; the others are about training batches.
DATA_KEYS = (
    *(field.name for source in (Source, Variants) for field in fields(source) if field.name != "variants"),
    "eval_batch_size", "normalize",
)  # fmt: skip


def load_classifier(path: str | Path, trusted: Sequence[str] = ()) -> ImageClassifier:
    """The checkpoint's network with its weights, in evaluation mode on the CPU; torch's random state is not changed.

    trusted: other modules whose classes may be built, such as "my_models".
    Raises UserError for a checkpoint that is damaged, names other classes, or has weights of another network.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    return classifier_of(read_checkpoint(path), path, trusted)


def classifier_of(checkpoint: Mapping[str, Any], path: str | Path, trusted: Sequence[str] = ()) -> ImageClassifier:
    """As `load_classifier`, from what `read_checkpoint` read; `path` is for messages."""
    ours, state = checkpoint["cifar_lightning"], checkpoint["state_dict"]
    if isinstance(state, dict):  # a loss may have weights
        state = {key: tensor for key, tensor in state.items() if not str(key).startswith("loss.")}
    _check_description(ours, path)
    try:
        check_section("model", ours["config"]["model"])
        network = build_network(ours["config"]["model"], state, trusted)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # nearly anything, for a manipulated config
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"{path}: its network can't be built: {type(error).__name__}: {reason}") from error
    classifier = ImageClassifier(
        network,
        optimizer={},
        scheduler={},
        mean=ours["mean"],
        std=ours["std"],
        class_names=ours["class_names"],
        image_shape=ours["image_shape"],
        config=ours["config"],
        channels_last=ours["config"].get("channels_last") is not False,
    )
    classifier.temperature = float(ours.get("temperature", 1.0))
    return classifier.eval()


def build_network(model: Any, state: Any, trusted: Sequence[str] = ()) -> nn.Module:
    """The network of the config `model` with the weights `state`, whose keys begin with `network.`.

    Raises UserError for a config that names a class that is not trusted, before anything is built or imported.
    """
    model = admitted(model, trusted)
    with torch.random.fork_rng(devices=[]):
        if not trusted:
            _check_size(model, state)
        network = instantiate(model)
    _check_shapes(network, state)
    weights = network.state_dict()  # with its layers' versions, which MNASNet needs and an average lacks
    weights.update({key.removeprefix("network."): tensor for key, tensor in state.items()})
    network.load_state_dict(weights)
    return network


def load_data(
    config: Mapping[str, Any], root: str | None = None, checkpoint: Path | None = None, trusted: Sequence[str] = ()
) -> Any:
    """The data of a checkpoint's config, set up: from `root`, else from where it was in training.

    The user's own LightningDataModule must be in a `trusted` module.
    Raises UserError if the data is missing and can't be downloaded.
    """
    if not str(config["data"].get("_target_", "cifar_lightning.")).startswith("cifar_lightning."):
        own = {key: value for key, value in config["data"].items() if key != "sealed"}
        return adopted(instantiate(admitted(own, trusted)))
    settings = {key: value for key, value in config["data"].items() if key in DATA_KEYS}
    if settings.get("labels_file") and not Path(str(settings["labels_file"])).is_file():  # for training only
        settings["labels_file"] = None
    check_section("data", settings)
    # If found nowhere, the data is downloaded, but not to a folder that the file names.
    settings["root"] = root or find_root(config, checkpoint) or os.environ.get("CIFAR10_ROOT", "data")
    try:
        datamodule = ImageDataModule(**settings, batch_size=1)
        datamodule.setup()
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's data settings can't be used: {error}") from error
    return datamodule


def find_root(config: Mapping[str, Any], checkpoint: Path | None = None) -> str | None:
    """The folder with the data: the saved `data.root`, else $CIFAR10_ROOT; None if in neither.

    A relative `data.root` is relative to where training was started: here, or a folder above the checkpoint.
    """
    saved = Path(str(config["data"].get("root", "data")))
    above = checkpoint.absolute().parents if checkpoint else ()
    places = [saved, *(folder / saved for folder in above), Path(os.environ.get("CIFAR10_ROOT", saved))]
    known = SETS.get(str(config["data"].get("name")))
    files = (known.official.folder, known.official.archive) if known and known.official else ("",)
    return next((str(place) for place in places if any((place / file).exists() for file in files)), None)


def _check_description(ours: Any, path: str | Path) -> None:
    """Raise UserError if what ImageClassifier.on_save_checkpoint writes is missing or of another type."""
    ours = ours if isinstance(ours, dict) else {}
    config, names, std = ours.get("config"), ours.get("class_names"), ours.get("std")
    checks = {
        "the run's config": isinstance(config, dict)
        and all(isinstance(config.get(k), dict) for k in ("model", "data"))
        and all(isinstance(config.get(k, {}), dict) for k in ("trainer", "choices")),
        "the class names": _are_names(names),
        "the image shape": _is_shape(ours.get("image_shape")),
        "the mean": _numbers(ours.get("mean")),
        "the standard deviation": _numbers(std) and min(std) > 0,
        "the temperature": _numbers([ours.get("temperature", 1.0)]) and ours.get("temperature", 1.0) > 0,
    }
    for what, is_valid in checks.items():
        if not is_valid:
            raise UserError(f"{path} is not a complete checkpoint of cifar_lightning: {what} is missing or damaged")


def _are_names(names: Any) -> bool:
    """Distinct printable names: control characters could be commands to the terminal."""
    return (
        isinstance(names, list)
        and all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100 for name in names)
        and 0 < len(set(names)) == len(names) <= MAX_CLASSES
    )


def _is_shape(shape: Any) -> bool:
    """Channels, height and width of reasonable size."""
    return isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 1024 for n in shape)


def _numbers(values: Any) -> bool:
    """One finite number per channel."""
    return (
        isinstance(values, list)
        and 0 < len(values) <= 16
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _check_size(model: Mapping[str, Any], state: Any) -> None:
    """Build the network without memory: a manipulated config may ask for terabytes, or for thousands of layers."""
    if not isinstance(state, dict):
        raise UserError("its weights are not tensors")
    layers, most = itertools.count(), 1_000 + 10 * len(state)

    def count(*_: Any) -> None:
        if next(layers) > most:
            raise UserError("its config describes a network with far more layers than it has weights")

    counting = register_module_module_registration_hook(count)
    try:
        with torch.device("meta"), _RealNumbers():
            _check_shapes(instantiate(model), state)
    finally:
        counting.remove()


class _RealNumbers(TorchFunctionMode):
    """Gives short ranges and lists their values although the device is meta: RegNets compute their widths from them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        short = func is torch.arange and all(isinstance(end, int) and abs(end) < 10_000 for end in args)
        if short or func is torch.tensor:
            kwargs = {"device": "cpu", **(kwargs or {})}
        return func(*args, **(kwargs or {}))


def _check_shapes(network: Any, state: Any) -> None:
    if not isinstance(network, nn.Module):
        raise UserError("its config does not build a network")
    wanted = {f"network.{key}": tensor.shape for key, tensor in network.state_dict().items()}
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError("its weights are not tensors")
    found = {key: tensor.shape for key, tensor in state.items()}
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            there, here = (tuple(shapes[key]) if key in shapes else "nothing" for shapes in (found, wanted))
            fault = f"{str(key)[:80]!r} has {there} instead of {here}"
            raise UserError(f"its weights don't fit the network of its config: {fault}")
