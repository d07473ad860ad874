"""Choices are read from the source, and are those that the imported class is annotated with."""

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from omegaconf import OmegaConf

from cifar_lightning.config.compose import conf_dir
from cifar_lightning.config.signatures import parameter_choices


def targets() -> list[str]:
    """Every class and function of ours that a config file names."""
    found = set()
    for path in conf_dir().rglob("*.yaml"):
        found |= set(our_targets(OmegaConf.load(path)))
    return sorted(found)


def our_targets(node):
    if OmegaConf.is_dict(node):
        target = OmegaConf.to_container(node, resolve=False).get("_target_")
        if str(target).startswith("cifar_lightning."):
            yield target
        for key in node:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield from our_targets(node[key])


def literal_hints(target: str) -> dict[str, tuple]:
    module, _, name = target.rpartition(".")
    built = getattr(import_module(module), name)
    hints = get_type_hints(built.__init__ if inspect.isclass(built) else built)
    found = {}
    for parameter, hint in hints.items():
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal:
                optional = (None,) if part is not hint and type(None) in get_args(hint) else ()
                found[parameter] = (*get_args(part), *optional)
    return found


@pytest.mark.parametrize("target", targets())
def test_choices_are_those_of_the_annotation(target):
    assert parameter_choices(target) == literal_hints(target)


def test_a_class_of_another_package_has_none():
    assert parameter_choices("torch.optim.SGD") == {}


def test_torch_is_not_imported():
    code = (
        "import sys; from cifar_lightning.config.signatures import parameter_choices as choices; "
        "print(choices('cifar_lightning.data.datamodule.ImageDataModule')['source'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "('pickle', 'torchvision') False\n"
