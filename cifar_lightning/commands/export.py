"""The command export: a checkpoint as one file for use elsewhere, checked against the checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import CHECKPOINTS, ELSEWHERE, Command, Given, Key, beside, output_path
from cifar_lightning.console import say
from cifar_lightning.errors import UserError

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "state_dict": ".weights.ckpt"}
COMMAND = Command(
    "export",
    "Write a checkpoint's network as one self-contained file, normalization inside, any number of images at once.\n"
    "The file is run on real images and compared with the checkpoint; one that differs is not kept.",
    keys={
        **CHECKPOINTS,
        "format": Key("what the file is for", "onnx", tuple(SUFFIXES)),
        "input": Key("images as bytes, or as floats from 0 to 1", "uint8", ("uint8", "float")),
        "out": Key("the file, if not one beside the checkpoint"),
        **ELSEWHERE,
    },
    bare="ckpt_path",
    several=("ckpt_path",),
    examples={
        "ckpt_path=best.ckpt": "best.onnx, for ONNX Runtime and what reads its files",
        "ckpt_path=best.ckpt format=torch_export out=net.pt2": "for torch.export.load, without this package",
        "ckpt_path=best.ckpt format=state_dict": "the weights and what they mean, without the optimizer's state",
        "RUN_1 RUN_2 RUN_3 out=three.onnx": "one file that averages three networks' probabilities",
    },
)


def run(given: Given) -> int:
    checkpoints: list[Path] = given["ckpt_path"]
    if len(checkpoints) > 1 and given["format"] == "state_dict":
        raise UserError("format=state_dict is for one checkpoint: export each on its own, or choose onnx, torch_export")
    out = output_path(Path(given["out"] or beside(checkpoints, SUFFIXES[given["format"]])).expanduser())
    if out.exists() and any(out.samefile(checkpoint) for checkpoint in checkpoints):
        raise UserError(f"out={out} is the checkpoint itself: give another name")

    from cifar_lightning.evaluation.export import export  # imports torch

    settings = {"format": given["format"], "dtype": given["input"], "root": given["data.root"]}
    done = export(checkpoints, out, **settings, trusted=given["trust"])
    say(f"{out} ({out.stat().st_size:,} bytes)")
    for key in ("input", "output", "normalization"):
        say(f"  {key}: {done.notes[key]}")
    of = "ensemble" if len(checkpoints) > 1 else "checkpoint"
    say(f"  checked on {done.images}: logits differ by at most {done.difference:.2g} from the {of}'s")
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
