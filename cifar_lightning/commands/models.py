"""The command models: every model with its size, its cost and where its numbers come from."""

import ast
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.config.compose import compose, conf_dir, instantiate, plain
from cifar_lightning.config.hints import choices
from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.models.torchvision_families import NAMES, family_of
from cifar_lightning.reporting.tables import Row, number, rich_table

PIXELS = SETS["cifar10"].image_shape[-1]
COMMAND = Command(
    "models",
    "List every model (model=NAME) with its parameters, the multiply-adds of one 32 px image, and where its\n"
    "architecture comes from. Nothing is trained or downloaded.",
    keys={
        "name": Key("a model, or a classifier of torchvision; more than one may be given"),
        "all": Key("list torchvision's classifiers, too", "false", ("true", "false")),
    },
    examples={
        "": "every file of conf/model",
        "resnet18 wide_resnet": "only these",
        "all=true": "the classifiers of torchvision, too (model=torchvision model.name=NAME)",
    },
    usage="[NAME ...] [key=value ...]",
    bare="name",
    several=("name",),
)


def cost(model: Any, pixels: int = PIXELS) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image in use, of the network that this `model` config builds.

    Multiply-adds are those of convolutions and matrix products, as in the papers. No weight is allotted for it.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    class Unallotted(TorchFunctionMode):
        """Weights have only a shape; unlike in torch.device("meta"), numbers to compute a plan with are real."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is torch.empty and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    with Unallotted():
        network = instantiate(plain(model)).eval().to("meta")
    # Then as fake tensors of a CPU, since some networks ask for their device. Gradients stay on: without them torch
    # takes fused paths through attention that the counter does not know.
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network = network.to_empty(device="cpu")
        network(torch.empty(1, 3, pixels, pixels))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def header(name: str) -> str:
    """What the comment at the top of the model's file says of it, without the number of parameters."""
    lines = (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    return re.sub(r"\s*[^.]*\d parameters.*", "", comment).rstrip(".")


def source(model: Any) -> str:
    """The module's own words on where its plan comes from: what follows the first line of its docstring."""
    spec = importlib.util.find_spec(model["_target_"].rpartition(".")[0])
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        docstring = ast.get_docstring(ast.parse(file.read())) or ""
    return " ".join(docstring.partition("\n\n")[2].split())


def torchvision_row(name: str) -> Row:
    family = family_of(name)
    enlarged = family.exact_size or family.min_size > PIXELS
    override = [f"model.image_size={family.made_for}"] if enlarged else []
    parameters, operations = cost(compose(["model=torchvision", f"model.name={name}", *override]).model)
    note = f"torchvision, image enlarged to {family.made_for} px: it can't take {PIXELS}" if enlarged else "torchvision"
    return {"model": name, "parameters": number(parameters), "multiply-adds": number(operations), "what": note}


def checked(names: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys([*choices("model"), *NAMES]))
    for name in names:
        if name not in known:
            near = nearest(name, known)
            many = ". `python -m cifar_lightning models all=true` lists all"  # a hundred names are no answer
            raise UserError(f"{name}: there is no such model{near if near.startswith(';') else many}")
    return list(names)


def show(names: Sequence[str]) -> None:
    from rich.console import Console

    rows: list[Row] = []
    sources: dict[str, list[str]] = {}
    for name in names:
        if name not in choices("model"):
            rows.append(torchvision_row(name))
            continue
        model = compose([f"model={name}"]).model
        parameters, operations = cost(model)
        cells = {"parameters": number(parameters), "multiply-adds": number(operations), "what": header(name)}
        rows.append({"model": name, **cells})
        sources.setdefault(source(model), []).append(name)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(rich_table(rows))
    for words, users in sources.items():
        text = textwrap.fill(f"{', '.join(users)}: {words}", min(console.width, 120), subsequent_indent="    ")
        say(text)


def run(given: Given) -> int:
    names = checked(given["name"]) or choices("model")
    show(list(dict.fromkeys([*names, *(NAMES if given["all"] == "true" else ())])))
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
