"""The command export: a checkpoint as one file for use elsewhere, checked against the checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import CHECKPOINT, ELSEWHERE, Command, Given, Key, output_path
from cifar_lightning.console import say
from cifar_lightning.errors import UserError

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "state_dict": ".weights.ckpt"}
COMMAND = Command(
    "export",
    "Write a checkpoint's network as one self-contained file, normalization inside, any number of images at once.\n"
    "The file is run on real images and compared with the checkpoint; one that differs is not kept.",
    keys={
        **CHECKPOINT,
        "format": Key("what the file is for", "onnx", tuple(SUFFIXES)),
        "input": Key("images as bytes, or as floats from 0 to 1", "uint8", ("uint8", "float")),
        "out": Key("the file, if not one beside the checkpoint"),
        **ELSEWHERE,
    },
    bare="ckpt_path",
    examples={
        "ckpt_path=best.ckpt": "best.onnx, for ONNX Runtime and what reads its files",
        "ckpt_path=best.ckpt format=torch_export out=net.pt2": "for torch.export.load, without this package",
        "ckpt_path=best.ckpt format=state_dict": "the weights and what they mean, without the optimizer's state",
    },
)


def run(given: Given) -> int:
    checkpoint: Path = given["ckpt_path"]
    beside = checkpoint.with_name(checkpoint.stem + SUFFIXES[given["format"]])
    out = output_path(Path(given["out"] or beside).expanduser())
    if out.exists() and out.samefile(checkpoint):
        raise UserError(f"out={out} is the checkpoint itself: give another name")

    from cifar_lightning.evaluation.export import export  # imports torch

    settings = {"format": given["format"], "dtype": given["input"], "root": given["data.root"]}
    done = export(checkpoint, out, **settings, trusted=given["trust"])
    say(f"{out} ({out.stat().st_size:,} bytes)")
    for key in ("input", "output", "normalization"):
        say(f"  {key}: {done.notes[key]}")
    say(f"  checked on {done.images}: logits differ by at most {done.difference:.2g} from the checkpoint's")
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
