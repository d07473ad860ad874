"""Networks from the files in conf/model and conf/activation, as composing a config would give them."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from cifar_lightning.config.compose import conf_dir, instantiate, plain

MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
ACTIVATIONS = sorted(path.stem for path in (conf_dir() / "activation").glob("*.yaml"))
OURS = [name for name in MODELS if "activation" in OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")]
# The same plan with fewer channels, for tests that build or train every network.
NARROW: dict[str, dict[str, Any]] = {
    "convmixer": {"width": 32, "depth": 2},
    "densenet": {"depth": 16, "growth_rate": 8},
    "preact_resnet": {"blocks": 1},
    "speednet": {"widths": [16, 32, 32]},
    "timm": {"name": "test_efficientnet"},
    "resnet18": {"stem_width": 8, "widths": [8, 16, 32, 64]},
    "vgg": {"depth": 11},
    "vit": {"width": 48, "depth": 2, "heads": 4, "hidden": 96},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
}


def model_config(name: str, activation: str = "relu", /, **keys: Any) -> DictConfig:
    config = OmegaConf.create(
        {
            "activation": OmegaConf.load(conf_dir() / "activation" / f"{activation}.yaml"),
            "model": OmegaConf.load(conf_dir() / "model" / f"{name}.yaml"),
        }
    )
    OmegaConf.set_struct(config, True)  # so that a key that the file lacks is an error
    config.model.merge_with(keys)
    return config.model


def build(name: str, activation: str = "relu", /, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(plain(model_config(name, activation, **keys)))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
