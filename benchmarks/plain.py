"""The recipes as their authors wrote them, as one plain script, for comparison with the framework.

Eager float32, torchvision transforms of PIL images, a DataLoader without workers, the optimizer's defaults, and
`loss.item()` in every step. classic/cnn_relu uses a TensorDataset of floats, classic/tutorial_net two workers.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks import record
from cifar_lightning.api import compose, load_data
from cifar_lightning.config.compose import instantiate, plain
from cifar_lightning.data.loader import Split
from cifar_lightning.data.normalize import normalization
from cifar_lightning.data.sets import SETS
from cifar_lightning.models.convnet import MONOTONIC, ConvNet

WORKERS = {"classic/tutorial_net": 2}
PIL_TRANSFORMS = {
    "none": [],
    "flip": [transforms.RandomHorizontalFlip()],
    "flip_crop": [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, 4, padding_mode="reflect")],
    "affine_jitter": [
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(10, scale=(0.8, 1.2), shear=10),
        transforms.ColorJitter(0.2, 0.2, 0.2),
    ],
}


class PilImages(Dataset):
    """Like torchvision.datasets.CIFAR10: each array is converted to a PIL image and transformed."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.data = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def train(config: DictConfig, split: Split) -> Iterator[int]:
    """Train the recipe endlessly; yields the number of images of each step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = in_the_authors_order(instantiate(plain(config.model))).to(device)
    optimizer = build_optimizer(config, network)
    criterion = nn.CrossEntropyLoss()
    loader = build_loader(config, split)
    while True:
        running_loss = 0.0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            yield len(images)


def in_the_authors_order(network: nn.Module) -> nn.Module:
    """Move pooling after the activation, as the authors do; ConvNet pools first where the result is the same."""
    if isinstance(network, ConvNet):
        layers = list(network.features)
        for i, (first, second) in enumerate(pairwise(layers)):
            if isinstance(first, nn.MaxPool2d) and isinstance(second, MONOTONIC):
                network.features[i], network.features[i + 1] = second, first
    return network


def build_optimizer(config: DictConfig, network: nn.Module) -> torch.optim.Optimizer:
    keys = {key: value for key, value in plain(config.optimizer).items() if key != "decay_norms_and_biases"}
    return instantiate(keys | {"_partial_": True})(network.parameters())


CHANNEL = SETS["cifar10"].channel


def build_loader(config: DictConfig, split: Split) -> DataLoader:
    experiment = config.choices["experiment"]
    if experiment == "classic/cnn_relu":
        return DataLoader(TensorDataset(split.images / 255, split.labels), config.data.batch_size, shuffle=True)
    steps = [*PIL_TRANSFORMS[config.choices["augmentation"]], transforms.ToTensor()]
    if config.data.normalize != "none":
        steps.append(transforms.Normalize(*normalization(config.data.normalize, split.images, CHANNEL)))
    workers = WORKERS.get(experiment, 0)
    return DataLoader(PilImages(split, transforms.Compose(steps)), config.data.batch_size, True, num_workers=workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Train a recipe for some steps, for `benchmarks.memory`."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.plain", description=__doc__)
    options.add_argument("recipe", help="such as classic/lenet")
    options.add_argument("--steps", type=record.positive, default=100)
    options.add_argument("overrides", nargs="*", help="config overrides, such as data.root=DIR")
    arguments = options.parse_args(argv)
    config = compose([f"experiment={arguments.recipe}", *arguments.overrides])
    for _, _ in zip(range(arguments.steps), train(config, load_data(config).train), strict=False):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
