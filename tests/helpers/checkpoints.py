"""Checkpoints without a training: a network's first weights with the config that would have built it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_lightning.config.compose import compose, instantiate, plain

DIGITS = tuple("0123456789")


def whole_config(*overrides: str) -> dict[str, Any]:
    """The config of a run, in plain containers, as checkpoints hold it."""
    config = compose(["data=digits", "model=cnn2", *overrides])
    return {key: plain(config[key]) for key in ("data", "model", "channels_last", "seed")} | {
        "trainer": {"precision": "32-true"},
        "choices": {"model": "cnn2"},
    }


def checkpoint_of(
    config: dict[str, Any] | None = None, network: nn.Module | None = None, class_names: tuple[str, ...] = DIGITS
) -> dict[str, Any]:
    """What Lightning would have saved, as far as using the network needs it."""
    config = config or whole_config()
    torch.manual_seed(0)
    network = instantiate(config["model"]) if network is None else network
    return {
        "state_dict": {f"network.{key}": tensor for key, tensor in network.state_dict().items()},
        "cifar_lightning": {
            "config": config,
            "class_names": list(class_names),
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "image_shape": [3, 32, 32],
            "resume": {"rng": torch.get_rng_state()[None]},
        },
        "optimizer_states": [{"momentum": torch.zeros(1000)}],
    }


def write_checkpoint(path: Path, **keys: Any) -> Path:
    torch.save(checkpoint_of(**keys), path)
    return path
