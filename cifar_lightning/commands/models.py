"""The command models: every model with its parameters and multiply-adds."""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.config.compose import compose, conf_dir, instantiate, plain
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.models import timm_networks
from cifar_lightning.models.torchvision_families import NAMES, family_of
from cifar_lightning.reporting.tables import Row, number, rich_table

PIXELS = 32  # of the images for which sizes and operations are counted
COMMAND = Command(
    "models",
    "List every model (model=NAME) with its parameters and the multiply-adds of one 32 px image.\n"
    "Nothing is trained or downloaded.",
    keys={
        "name": Key("a model, or a classifier of torchvision or timm; more than one may be given"),
        "all": Key("list torchvision's classifiers, too", "false", ("true", "false")),
        "timm": Key("list timm's networks with this word in their names"),
    },
    examples={
        "": "every file of conf/model",
        "resnet18 wide_resnet": "only these",
        "all=true": "the classifiers of torchvision, too (model=torchvision model.name=NAME)",
        "timm=vit_tiny": "those of timm with this in their names (model=timm model.name=NAME)",
    },
    usage="[NAME ...] [key=value ...]",
    bare="name",
    several=("name",),
)


def run(given: Given) -> int:
    from rich.console import Console

    ours, word = choices("model"), given["timm"]
    rows = [row_of(name, ours) for name in dict.fromkeys(given["name"])]
    if not given["name"] and not word:
        rows += [own_row(name) for name in ours]
    if given["all"] == "true":
        rows += [torchvision_row(name) for name in NAMES]
    if word:
        names = [name for name in timm_networks.architectures() if word in name]
        if not names:
            raise UserError(f"timm={word}: no network of timm has this in its name{near_timm(word)}")
        rows += [timm_row(name) for name in names]
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(rich_table(rows))
    return 0


def row_of(name: str, ours: Sequence[str]) -> Row:
    """The row of a model, else of torchvision's, else of timm's classifier. Raises UserError for an unknown name."""
    if name in ours:
        return own_row(name)
    if name in NAMES:
        return torchvision_row(name)
    known = [*ours, *NAMES]
    if find_spec("timm") is not None:
        if name.partition(".")[0] in timm_networks.architectures():
            return timm_row(name)
        known += timm_networks.architectures()
    near = nearest(name, known)
    listing = ". `python -m cifar_lightning models all=true` lists all"  # rather than a hundred names here
    raise UserError(f"{name}: there is no such model{near if near.startswith(';') else listing}")


def near_timm(word: str) -> str:
    near = nearest(word, timm_networks.architectures())
    return near if near.startswith(";") else ""


def own_row(name: str) -> Row:
    return row(name, compose([f"model={name}"]).model, header(name))


def torchvision_row(name: str) -> Row:
    family = family_of(name)
    enlarged = family.exact_size or family.min_size > PIXELS
    override = [f"model.image_size={family.made_for}"] if enlarged else []
    model = compose(["model=torchvision", f"model.name={name}", *override]).model
    note = f"torchvision, image enlarged to {family.made_for} px: it can't take {PIXELS}" if enlarged else "torchvision"
    return row(name, model, note)


def timm_row(name: str) -> Row:
    """With the size of the images and the normalization that its weights expect."""
    timm_networks.check_name(name)
    cfg, note = timm_networks.weights_of(name), "timm, without weights"
    if cfg.has_weights:
        note = f"timm; weights: {cfg.tag}, {cfg.input_size[-1]} px, {normalized_by(cfg.mean)}"
    size = cfg.input_size[-1]
    for override in ([], [f"model.image_size={size}"]):
        model = compose(["model=timm", f"model.name={name}", *override]).model
        try:
            return row(name, model, note + (f"; enlarged to {size} px: it can't take {PIXELS}" if override else ""))
        except (RuntimeError, AssertionError, UserError):
            continue
    return {"model": name, "parameters": "-", "multiply-adds": "-", "what": "timm, no classifier of images"}


def normalized_by(mean: tuple[float, ...]) -> str:
    """The choice of data.normalize for weights whose images were normalized with this mean, as timm states it."""
    from cifar_lightning.data.normalize import IMAGENET_MEAN

    known = {IMAGENET_MEAN: "imagenet", (0.5, 0.5, 0.5): "half", (0.0, 0.0, 0.0): "none"}
    return f"data.normalize={known[mean]}" if mean in known else f"mean {mean}, near data.normalize=imagenet"


def row(name: str, model: Any, note: str) -> Row:
    parameters, operations = cost(model)
    return {"model": name, "parameters": number(parameters), "multiply-adds": number(operations), "what": note}


def header(name: str) -> str:
    """The comment at the top of the model's file, without the number of parameters."""
    lines = (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    return re.sub(r"\s*[^.]*\d parameters.*", "", comment).rstrip(".")


def cost(model: Any, pixels: int = PIXELS) -> tuple[int, int]:
    """Parameters and multiply-adds per image of the network that this `model` config builds, without allocating it.

    Counts the multiply-adds of convolutions and matrix products, as papers do.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    class EmptyOnMeta(TorchFunctionMode):
        """Allocates no weights, but unlike torch.device("meta") real tensors from which layer sizes are computed."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.empty and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    with EmptyOnMeta():
        network = instantiate(plain(model)).eval().to("meta")
    # Fake CPU tensors, since some networks query their device. Gradients stay on: without them torch uses fused
    # attention, which the counter does not know.
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network = network.to_empty(device="cpu")
        network(torch.empty(1, 3, pixels, pixels))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
