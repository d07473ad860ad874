"""Optimizers of the package pytorch_optimizer (`optimizer=extra`), if they can train networks of images here."""

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from cifar_lightning.errors import UserError, first_line, nearest

PACKAGE = "pytorch_optimizer"


def check_name(target: str) -> None:
    """Raise UserError if the package is not installed or has no optimizer of this name."""
    name = target.rpartition(".")[2]
    if find_spec(PACKAGE) is None:
        raise UserError(f"optimizer=extra needs the package {PACKAGE}: pip install 'cifar-lightning[optimizers]'")
    known = [
        key
        for key, value in vars(import_module(PACKAGE)).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    ]
    if name not in known:
        raise UserError(f"optimizer.name={name}: {PACKAGE} has no such optimizer{nearest(name, known)}")


def rehearse(factory: Callable[..., Any], optimizer: Mapping[str, Any]) -> None:
    """Take two steps and save the state, on a network of a few weights.

    Some need the model, another optimizer, second derivatives, or matrices only, and some can't be saved as plain data,
    which no signature tells. Raises UserError with the reason.
    """
    named = f"optimizer.name={optimizer['name']}"
    state = io.BytesIO()
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(54, 10))
        images = torch.rand(4, 3, 5, 5)

        def loss() -> torch.Tensor:
            built.zero_grad()
            value: torch.Tensor = network(images).square().mean()
            value.backward()
            return value

        try:
            built = factory(network.parameters())
            for _ in range(2):
                built.step(loss)
            torch.save(built.state_dict(), state)
        except Exception as error:  # whatever a class makes of what it is not meant for
            raise UserError(f"{named} can't train this network: {first_line(error)}") from error
    state.seek(0)
    try:
        torch.load(state, weights_only=True)
    except Exception as error:
        raise UserError(f"{named} has a state that is not plain data, so its runs could not resume") from error
