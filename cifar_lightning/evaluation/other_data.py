"""Get the test images of other data sets, in the shape of a network's own: what it was never trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cifar_lightning.checkpoints.load import load_data
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import plain, quoted
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError

USUAL = {"digits": "", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "svhn": "test_32x32.mat"}


def present(own: str, root: Path) -> dict[str, Path | None]:
    """The usual other data sets whose files lie in the data folder, which is where each is read from."""
    return {name: root for name, file in USUAL.items() if name != own and (not file or (root / file).exists())}


def other_images(folders: Mapping[str, Path | None], shape: Sequence[int]) -> dict[str, Tensor]:
    """The test images uint8 [N, C, H, W] of data sets, by name; folders: where each lies, None: where it usually does.

    shape: [C, H, W] of the network's images. Files that differ from the official ones are accepted, which is logged.
    Raises UserError where a data set can't be had or has another shape.
    """
    return {name: images_of(name, folder, shape) for name, folder in folders.items()}


def images_of(name: str, folder: Path | None, shape: Sequence[int]) -> Tensor:
    channels, size = shape[0], shape[-1]
    words = [f"data={name}", "data.val_size=0", f"data.channels={channels}"]
    words += [f"data.image_size={size}"] if size in SETS[name].image_sizes else []
    words += [f"data.root={quoted(folder)}"] if folder and name != "digits" else []
    words += ["data.verify=false"] if SETS[name].official else []
    config = plain(compose_checked(words).data)
    data = load_data({"data": config}, str(folder) if folder else None)
    if data.image_shape != tuple(shape):
        raise UserError(f"ood={name}: its images are {list(data.image_shape)}, the network takes {list(shape)}")
    return data.test.images
