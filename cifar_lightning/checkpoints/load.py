"""From a checkpoint file alone to a network that is ready for use, and to the data it was trained on.

A checkpoint may come from anyone: it is read as plain data, and trust.py says which classes of its config are built.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.checkpoints.trust import admitted, check_section
from cifar_lightning.config.compose import instantiate
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.own import adopted
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError
from cifar_lightning.training.classifier import ImageClassifier

MOST_CLASSES = 1_000
# What decides which images a split has; the rest of the data's keys is about training batches.
DATA_KEYS = ("name", "source", "root", "verify", "val_size", "split_seed", "eval_batch_size", "normalize")


def load_classifier(path: str | Path, trusted: Sequence[str] = ()) -> ImageClassifier:
    """The checkpoint's network with its weights, in evaluation mode on the CPU; torch's random state is untouched.

    trusted: modules whose classes may be built as well, such as "my_models".

    Raises UserError for a checkpoint that is damaged, names other classes, or has weights of another network.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file")
    checkpoint = read_checkpoint(path)
    ours, state = checkpoint["cifar_lightning"], checkpoint["state_dict"]
    if isinstance(state, dict):  # a loss may have weights, too
        state = {key: tensor for key, tensor in state.items() if not str(key).startswith("loss.")}
    _check_description(ours, path)
    try:
        check_section("model", ours["config"]["model"])
        network = build_network(ours["config"]["model"], state, trusted)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # what can't go wrong with a config of ours can with a doctored one
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
    return classifier.eval()


def build_network(model: Any, state: Any, trusted: Sequence[str] = ()) -> nn.Module:
    """The network of the config `model` with the weights `state`, whose keys begin with `network.`.

    Raises UserError, before anything is built or imported, for a config that names anything but trusted classes.
    """
    model = admitted(model, trusted)
    with torch.random.fork_rng(devices=[]):
        if not trusted:
            _check_size(model, state)
        network = instantiate(model)
    _check_shapes(network, state)
    weights = network.state_dict()  # carries the versions of its layers, which MNASNet asks for and an average loses
    weights.update({key.removeprefix("network."): tensor for key, tensor in state.items()})
    network.load_state_dict(weights)
    return network


def load_data(
    config: Mapping[str, Any], root: str | None = None, checkpoint: Path | None = None, trusted: Sequence[str] = ()
) -> Any:
    """The data of a checkpoint's config, set up: from `root`, else from where they lay in training.

    A LightningDataModule of the user's own has to lie in a `trusted` module.
    Raises UserError where the data are not there and can't be had.
    """
    if not str(config["data"].get("_target_", "cifar_lightning.")).startswith("cifar_lightning."):
        return adopted(instantiate(admitted(config["data"], trusted)))
    settings = {key: value for key, value in config["data"].items() if key in DATA_KEYS}
    check_section("data", settings)
    # Where they are to be found nowhere they are downloaded, but not to where a file says.
    settings["root"] = root or find_root(config, checkpoint) or os.environ.get("CIFAR10_ROOT", "data")
    try:
        datamodule = ImageDataModule(**settings, batch_size=1)
        datamodule.setup()
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's settings of the data can't be used: {error}") from error
    return datamodule


def find_root(config: Mapping[str, Any], checkpoint: Path | None = None) -> str | None:
    """Where the data lie ready: at the saved `data.root`, else at $CIFAR10_ROOT; None if at neither.

    A relative `data.root` counts from where training was started: here, or a folder above the checkpoint.
    """
    saved = Path(str(config["data"].get("root", "data")))
    above = checkpoint.absolute().parents if checkpoint else ()
    places = [saved, *(folder / saved for folder in above), Path(os.environ.get("CIFAR10_ROOT", saved))]
    known = SETS.get(str(config["data"].get("name")))
    files = (known.official.folder, known.official.archive) if known and known.official else ()
    return next((str(place) for place in places if any((place / file).exists() for file in files)), None)


def _check_description(ours: Any, path: str | Path) -> None:
    """Raise UserError where what ImageClassifier.on_save_checkpoint writes is not there, or of another kind."""
    ours = ours if isinstance(ours, dict) else {}
    config, names, std = ours.get("config"), ours.get("class_names"), ours.get("std")
    sound = {
        "the run's config": isinstance(config, dict)
        and all(isinstance(config.get(k), dict) for k in ("model", "data"))
        and all(isinstance(config.get(k, {}), dict) for k in ("trainer", "choices")),
        "the names of the classes": _are_names(names),
        "the shape of the images": _is_shape(ours.get("image_shape")),
        "the mean": _numbers(ours.get("mean")),
        "the standard deviation": _numbers(std) and min(std) > 0,
    }
    for what, is_sound in sound.items():
        if not is_sound:
            raise UserError(f"{path} is not a whole checkpoint of cifar_lightning: {what} is missing or damaged")


def _are_names(names: Any) -> bool:
    """Different texts that can be printed: what isn't printable could be an instruction to the terminal."""
    return (
        isinstance(names, list)
        and all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100 for name in names)
        and 0 < len(set(names)) == len(names) <= MOST_CLASSES
    )


def _is_shape(shape: Any) -> bool:
    """Channels, height and width of images that are no attack on the memory."""
    return isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 1024 for n in shape)


def _numbers(values: Any) -> bool:
    """A number for each channel of an image."""
    return (
        isinstance(values, list)
        and 0 < len(values) <= 16
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _check_size(model: Mapping[str, Any], state: Any) -> None:
    """Build the network of shapes alone: a doctored config may ask for terabytes, or for thousands of layers."""
    if not isinstance(state, dict):
        raise UserError("its weights are no tensors")
    layers, most = itertools.count(), 1_000 + 10 * len(state)

    def count(*_: Any) -> None:
        if next(layers) > most:
            raise UserError("its config asks for a network of far more layers than it has weights for")

    counting = register_module_module_registration_hook(count)
    try:
        with torch.device("meta"):
            _check_shapes(instantiate(model), state)
    finally:
        counting.remove()


def _check_shapes(network: Any, state: Any) -> None:
    if not isinstance(network, nn.Module):
        raise UserError("its config builds no network")
    wanted = {f"network.{key}": tensor.shape for key, tensor in network.state_dict().items()}
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError("its weights are no tensors")
    found = {key: tensor.shape for key, tensor in state.items()}
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            there, here = (tuple(shapes[key]) if key in shapes else "nothing" for shapes in (found, wanted))
            fault = f"{str(key)[:80]!r} has {there} where {here} is wanted"
            raise UserError(f"its weights don't fit the network of its config: {fault}")
