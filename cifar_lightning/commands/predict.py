"""The command predict: labels and probabilities for images of the user's own."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import (
    ACCELERATOR,
    CHECKPOINTS,
    ELSEWHERE,
    LEDGER,
    Command,
    Given,
    Key,
    beside,
    output_path,
)
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting import ledger
from cifar_lightning.runs.folders import command, folder_of

COMMAND = Command(
    "predict",
    "Say what is in images: the three most probable classes of each as a table, the images with the answers as a\n"
    "figure, and all probabilities as a file if wanted.\n"
    "Images of any size and kind (PNG, JPEG, WebP, BMP, GIF) are resized. Exit code 1 if one can't be read.",
    keys={
        **CHECKPOINTS,
        "images": Key("a file, a folder (searched to any depth) or a glob"),
        "index": Key("instead: images of the data set, as train, val or test:NUMBER,NUMBER"),
        "fit": Key("what becomes of the longer side", "crop", ("crop", "squash")),
        "background": Key("what shows through transparent pixels: a name or #rrggbb", "white"),
        "out": Key("a file for all probabilities: FILE.csv or FILE.json"),
        "figure": Key("FILE.png for the images with the answers, if not NAME_predictions.png beside the checkpoint"),
        **ACCELERATOR,
        **ELSEWHERE,
        **LEDGER,
    },
    bare="ckpt_path",
    several=("ckpt_path",),
    examples={
        "ckpt_path=best.ckpt images=photos": "every image in and below the folder photos",
        "ckpt_path=best.ckpt images='photos/*.png' out=answers.csv": "those that match; probabilities of all classes",
        "ckpt_path=best.ckpt index=test:10,11": "two images of the test set, with their labels",
        "RUN_1 RUN_2 RUN_3 images=photos": "the mean of three networks' probabilities",
    },
)


def run(given: Given) -> int:
    if (given["images"] is None) == (given["index"] is None):
        raise UserError("give either images=PATH or index=test:NUMBER,NUMBER")
    checkpoints: list[Path] = given["ckpt_path"]
    out = given["out"] and output_path(Path(given["out"]).expanduser())
    if out and out.suffix not in (".csv", ".json"):
        raise UserError(f"out={out}: the name must end in .csv or .json")
    figure = Path(given["figure"] or beside(checkpoints, "_predictions.png")).expanduser()
    if figure.suffix != ".png":
        raise UserError(f"figure={figure}: the name must end in .png")
    output_path(figure, key="figure")
    split, numbers = parse_index(given["index"]) if given["index"] else ("", [])

    # These import torch, which help and errors do without.
    from rich.console import Console

    from cifar_lightning.api import load
    from cifar_lightning.checkpoints.load import load_data
    from cifar_lightning.data.arrays import with_channels
    from cifar_lightning.data.images import check_background, find_images, read_images
    from cifar_lightning.evaluation.looks import check_seal, note_look
    from cifar_lightning.evaluation.testing import picked
    from cifar_lightning.reporting import predictions
    from cifar_lightning.reporting.figures import save_figure
    from cifar_lightning.reporting.tables import rich_table

    check_background(given["background"])
    files = find_images(given["images"]) if given["images"] else []
    classifier = load(checkpoints, accelerator=given["accelerator"], trusted=given["trust"])
    if files:
        images, read, problems = read_images(
            files, classifier.image_shape[-1], fit=given["fit"], background=given["background"]
        )
        images, names, labels = with_channels(images, classifier.image_shape[0]), list(map(str, read)), None
    else:
        data = load_data(classifier.config, given["data.root"], checkpoints[0], given["trust"])
        chosen, problems = picked(data, split, numbers, classifier.class_names), []
        if split == "test":  # their labels are shown
            test_ledger = ledger.ledger_of(checkpoints[0], given["paths.log_dir"])
            judged = [folder_of(checkpoint) or checkpoint for checkpoint in checkpoints]
            for run_folder in judged:
                check_seal(classifier.config, test_ledger, run_folder)
            config, typed = dict(classifier.config), command("predict", *given["typed"])
            config |= {"members": [*map(str, judged[1:])]} if judged[1:] else {}
            note_look(test_ledger, config, data, command=typed, run=judged[0], images=len(chosen))
        images, names = chosen.images.numpy(), [f"{split}:{number}" for number in numbers]
        labels = [classifier.class_names[label] for label in chosen.labels.tolist()]
    if names:
        answer = classifier.predict(images)
        if out:
            predictions.write_probabilities(out, names, answer.probabilities, answer.class_names, labels)
        # Piped output has no width, and tables squeezed into 80 columns are hard to read.
        console = Console(width=None if sys.stdout.isatty() else 250, highlight=False)
        console.print(rich_table(predictions.prediction_rows(names, answer.top(3), labels)))
        save_figure(predictions.prediction_grid(images, names, answer.top(1), labels), figure)
        most = predictions.MOST_IMAGES
        some = f" (the first {most} of {len(names):,})" if len(names) > most else ""
        say(f"images with predictions{some}: {figure}")
        if out:
            say(f"probabilities of all classes: {out}")
    if problems:
        lines = [f"{len(problems)} of {len(files)} images can't be read:", *map(str, problems)]
        raise UserError("\n       ".join(lines))
    return 0


def parse_index(text: str) -> tuple[str, list[int]]:
    """`test:10,11` as ("test", [10, 11]). Raises UserError."""
    match = re.fullmatch(r"(train|val|test):(\d{1,9}(?:,\d{1,9})*)", text.replace(" ", ""))
    if not match:
        raise UserError(f"index={text}: write train, val or test, a colon and numbers, e.g. index=test:10,11")
    return match[1], [int(number) for number in match[2].split(",")]


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
