"""The command compare: is A better than B, with an interval, a p-value and a verdict."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cifar_lightning.commands.data import keys_of_data
from cifar_lightning.commands.parser import Command, Given, Key, output_path
from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError, printable
from cifar_lightning.reporting.files import write_csv, write_text
from cifar_lightning.reporting.tables import rich_table

if TYPE_CHECKING:
    from cifar_lightning.evaluation.verdicts import Comparison

COMMAND = Command(
    "compare",
    "Compare the accuracies of two or more sides, image by image: the difference with its 95 % interval, a p-value\n"
    "(Holm's for several pairs) and a verdict; or, where nothing is decided, the seeds to run.\n"
    "One network each: McNemar's exact test. Several seeds: over seeds and images, paired by seed.\n"
    "A side is a run, a row of a folder of runs (FOLDER:ROW, by number, name or key=value), a folder of `evaluate`,\n"
    "or CSV or JSON files with one class, or a number for each class, for each image. NAME=SIDE names it.\n"
    "A folder alone: all its rows. Several parts of a side are joined by commas.",
    keys={
        "side": Key("what to compare; two or more"),
        "split": Key("the images", "test", ("test", "val")),
        "data": Key("labels and images from", choices=tuple(SETS)),
        "data.root": Key("the folder with the data, for data= and the gallery"),
        "out": Key("a folder for comparison.csv, comparison.md and figures/"),
    },
    examples={
        "logs/train/multiruns/NAME": "every pair of settings of a sweep",
        "logs/NAME:activation=relu logs/NAME:activation=tanh out=compared": "two of them, with figures",
        "logs/NAME A=activation=relu B=activation=tanh": "the same, under the names A and B",
        "ours=logs/train/runs/NAME theirs=theirs.csv": "a run and someone else's predictions",
        "a.csv b.json data=cifar10 data.root=/data": "predictions only, with the labels of CIFAR-10",
    },
    usage="SIDE SIDE [SIDE ...] [key=value ...]",
    bare="side",
    several=("side",),
    overrides=True,
)


def run(given: Given) -> int:
    words = [word for word in given["typed"] if word.partition("=")[0] not in COMMAND.keys]
    words = list(dict.fromkeys([*words, *given["side"]]))
    if not words:
        raise UserError("SIDE is missing: give runs or files of predictions, or a folder of runs")
    check_keys(given["overrides"])
    out = given["out"] and output_path(Path(given["out"]).expanduser(), folder=True)

    # These import NumPy, which help and errors do without.
    from cifar_lightning.evaluation.same_images import answered, truth_of
    from cifar_lightning.evaluation.sides import find_sides, told_apart
    from cifar_lightning.evaluation.verdicts import compared

    split = given["split"]
    found = told_apart(find_sides(words, split, alone=len(words) == 1))
    data = chosen_data(given["data"], given["data.root"]) if given["data"] else None
    comparison = compared(answered(found, truth_of(data, split) if data else None, split), split)
    show(comparison)
    if out:
        write(comparison, out, data, given["data.root"])
    return 0


def check_keys(words: Sequence[str]) -> None:
    """Raise UserError for a misspelt key, which is neither the name of a side nor a row."""
    for word in words:
        name, _, value = word.partition("=")
        meant = difflib.get_close_matches(name, COMMAND.keys, n=1, cutoff=0.75)
        if meant and not any(Path(text).expanduser().exists() for text in (word, value)):
            raise UserError(f"there is no key {name}; did you mean {meant[0]}?")


def chosen_data(name: str, root: str | None) -> Any:
    """The data set of `data=`, set up."""
    from cifar_lightning.data.datamodule import ImageDataModule  # imports torch

    words = [f"data={name}", *([f"data.root={root}"] if root else [])]
    data = ImageDataModule(**keys_of_data(words) | {"batch_size": 1})
    data.setup()
    return data


def show(comparison: "Comparison") -> None:
    console = Console(width=None if sys.stdout.isatty() else 250, highlight=False)
    console.print(rich_table(comparison.side_rows()))
    console.print(rich_table(comparison.difference_rows()))
    for note in comparison.notes:
        console.print(printable(note), markup=False, style="dim", soft_wrap=True)
    say()
    for sentence in comparison.verdicts:
        say(sentence)
    if comparison.commands:
        say("\nThe missing seeds:")
    for line in comparison.commands:
        say(f"  {line}")


def write(comparison: "Comparison", out: Path, data: Any, root: str | None) -> None:
    """Write the table as CSV and Markdown, and the figures."""
    from cifar_lightning.evaluation.verdicts import WORDS
    from cifar_lightning.reporting.difference_figures import Interval, differences, gallery
    from cifar_lightning.reporting.figures import save_figure

    write_csv(out / "comparison.csv", comparison.csv_rows())
    write_text(out / "comparison.md", comparison.markdown())
    accuracies = {side.name: [100 * accuracy for accuracy in side.accuracies] for side in comparison.sides}
    intervals = [
        Interval(f"{d.first.name} - {d.second.name}", 100 * d.difference, 100 * d.low, 100 * d.high, d.decided)
        for d in comparison.differences
    ]
    figures = {"differences": differences(accuracies, intervals, WORDS[comparison.split])}
    if len(comparison.sides) == 2 and all(len(side.seeds) == 1 for side in comparison.sides):
        try:
            images = images_of(comparison, data, root)
        except UserError as error:
            say(f"no gallery of images: {error}", sys.stderr)
        else:
            first, second = (each.predictions[0] for each in comparison.answered)
            names = comparison.sides[0].name, comparison.sides[1].name
            figures["gallery"] = gallery(images, comparison.answered[0].truth.labels, first, second, names)
    for name, figure in figures.items():
        save_figure(figure, out / "figures" / f"{name}.png")
    say(f"Written to {out}: comparison.csv, comparison.md, {', '.join(f'figures/{name}.png' for name in figures)}")


def images_of(comparison: "Comparison", data: Any, root: str | None) -> Any:
    """The images that were compared, uint8 [N, C, H, W]. Raises UserError if they are not at hand."""
    from cifar_lightning.checkpoints.load import find_root, load_data

    if data is None:
        runs = [run for each in comparison.answered for run in each.found.runs if run.config.get("data")]
        if not runs:
            raise UserError("say which data it is, such as data=cifar10")
        config, place = runs[0].config, runs[0].path
        official = SETS.get(str(config["data"].get("name")))
        if official and official.official and not (root or find_root(config, place)):  # which would be downloaded
            raise UserError(f"{config['data'].get('root')} has no images: say where they are with data.root=")
        data = load_data(config, root, place)
    images = getattr(data, comparison.split).images.numpy()
    index = comparison.answered[0].truth.index
    if index.max() >= len(images):
        raise UserError(f"there are {len(images):,} images, and one with the number {index.max()} was compared")
    return images[index]


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
