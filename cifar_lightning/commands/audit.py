"""The command data audit: near-duplicates in a data set, and labels that are probably wrong."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.commands import data as check
from cifar_lightning.commands.parser import ACCELERATOR, ELSEWHERE, Command, Given, Key, output_path
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import command

OF_DATA = (
    "data", "data.root", "data.labels", "data.source", "data.verify", "data.channels", "data.image_size",
    "data.unreadable",
)  # fmt: skip
OF_PAIRS = ("threshold", "ckpt_path", "embedding_threshold")
SWEEP = "-m data.folds=5 data.fold=0,1,2,3,4"
COMMAND = Command(
    "data audit",
    "Look for near-duplicates in the data: images that are copies of others, shifted, recoloured, recompressed or\n"
    "mirrored; with ckpt_path=RUN also those that a network finds alike. Or, with runs=SWEEP, for wrong labels, by\n"
    "confident learning from predictions that each run of a cross-validation makes for its own fold.\n"
    "Writes a CSV file, a page to look at, and a JSON file of indices; `evaluate exclude=FILE` leaves test images out.",
    keys={
        **{name: check.COMMAND.keys[name] for name in OF_DATA},
        "threshold": Key("the least similarity of pixels, up to 1", "0.85"),
        "ckpt_path": Key("a run or checkpoint: compare its embeddings, too, as more pairs to look at"),
        "embedding_threshold": Key("the least cosine of whitened embeddings, up to 1", "0.9"),
        "runs": Key("instead: the folder of a sweep over folds, to look for wrong labels"),
        "output": Key("a folder for the results, if not a new one in logs/audit"),
        **ACCELERATOR,
        "trust": ELSEWHERE["trust"],
    },
    examples={
        "": "near-duplicates in CIFAR-10: a few minutes on two cores",
        "data=cifar100 threshold=0.9": "only the clearest of CIFAR-100",
        "ckpt_path=logs/train/runs/NAME": "also what that network finds alike",
        "runs=logs/train/multiruns/NAME": f"wrong labels, from a sweep such as {SWEEP}",
    },
    usage="[key=value ...]",
    needs_checkpoint=False,
)


def run(given: Given) -> int:
    typed = [word.partition("=")[0] for word in given["typed"]]
    if given["runs"] is not None:
        unused = [name for name in typed if name in (set(OF_DATA) - {"data.root"}) | set(OF_PAIRS)]
        if unused:
            raise UserError(f"{unused[0]} has no effect with runs=FOLDER, whose data and checkpoints are used")
        return label_errors(given, output_folder(given["output"], "label_errors"))
    if "embedding_threshold" in typed and given["ckpt_path"] is None:
        raise UserError("embedding_threshold has no effect without ckpt_path=RUN")
    threshold, embedded = (share(name, given[name]) for name in ("threshold", "embedding_threshold"))
    words = [word for word in given["typed"] if word.partition("=")[0] in OF_DATA]
    config = check.keys_of_data([*words, "data.val_size=0"])
    return near_duplicates(given, config, threshold, embedded, output_folder(given["output"], "near_duplicates"))


def near_duplicates(given: Given, config: dict[str, Any], threshold: float, embedded: float, out: Path) -> int:
    # These import torch, which help and errors do without.
    import torch

    from cifar_lightning.data.datamodule import ImageDataModule
    from cifar_lightning.data.near_duplicates import near_duplicates, similar_embeddings
    from cifar_lightning.evaluation.inspection import embeddings
    from cifar_lightning.reporting import audit_pages
    from cifar_lightning.reporting.audit_pages import pair_rows

    classifier = given["ckpt_path"] and trained_on(given, config["name"])
    data = ImageDataModule(**config)
    data.setup()
    images = torch.cat([data.train.images, data.test.images])
    n = len(images)
    say(f"comparing {n * (n - 1) // 2:,} pairs of images")
    pairs = near_duplicates(images, threshold)
    alike = similar_embeddings(embeddings(classifier, images), embedded) if classifier else None
    labels = torch.cat([data.train.labels, data.test.labels]).tolist()
    rows = pair_rows(pairs, alike, len(data.train), [data.class_names[label] for label in labels])
    leaks = audit_pages.leaked(rows)
    facts = [
        ("Data", f"{data.name}, checksum {data.checksum}"),
        ("Compared", f"{len(data.test):,} test and {len(data.train):,} training images"),
        ("Pixels", f"similarity of at least {threshold:g}"),
        *([("Embeddings", f"cosine of at least {embedded:g}, by {given['ckpt_path']}")] if classifier else []),
    ]
    page = audit_pages.near_duplicate_page(
        name=data.name,
        pairs=rows,
        images={"train": data.train.images.numpy(), "test": data.test.images.numpy()},
        facts=facts,
        command=command("data", "audit", *given["typed"]),
        folder=out,
    )
    by_pixels, more = len(pairs), len(rows) - len(pairs)
    say(f"{by_pixels:,} pairs; {len(leaks):,} of {len(data.test):,} test images have a copy in training")
    if classifier:
        say(f"{more:,} more pairs by embeddings alone, to be looked at; the indices are without them")
    write(out, "pairs.csv", rows, audit_pages.PAIR_COLUMNS, page, "test_near_duplicates.json", data.name, "test", leaks)
    return 0


def label_errors(given: Given, out: Path) -> int:
    checkpoints = fold_checkpoints(Path(given["runs"]).expanduser())

    # These import torch.
    from cifar_lightning.api import load
    from cifar_lightning.evaluation.folds import out_of_fold
    from cifar_lightning.evaluation.label_errors import label_errors
    from cifar_lightning.reporting import audit_pages

    runs = {path: load(path, accelerator=given["accelerator"], trusted=given["trust"]) for path in checkpoints}
    typed_root = any(word.startswith("data.root=") for word in given["typed"])
    predicted = out_of_fold(runs, given["data.root"] if typed_root else None, given["trust"])
    found = label_errors(predicted.labels, predicted.probabilities)
    rows = audit_pages.error_rows(found, predicted.labels, predicted.class_names)
    right = float((predicted.probabilities.argmax(1) == predicted.labels).mean())
    page = audit_pages.label_error_page(
        name=predicted.name,
        errors=rows,
        images=predicted.images,
        confusions=audit_pages.confusion_rows(found.joint, predicted.class_names),
        accuracy=right,
        facts=[
            ("Runs", f"{len(runs)} in {given['runs']}"),
            ("Method", "confident learning (Northcutt et al. 2021, arXiv 1911.00068)"),
        ],
        command=command("data", "audit", *given["typed"]),
        folder=out,
    )
    say(f"{len(rows):,} of {len(predicted.labels):,} labels are doubtful; out-of-fold accuracy {100 * right:.2f} %")
    indices = sorted(int(index) for index in found.index)
    columns = audit_pages.ERROR_COLUMNS
    write(out, "label_errors.csv", rows, columns, page, "label_errors.json", predicted.name, "train", indices)
    return 0


def write(
    out: Path,
    table: str,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    page: str,
    index: str,
    name: str,
    split: str,
    indices: Sequence[int],
) -> None:
    """Write the table, the indices and the page, and say where they are."""
    from cifar_lightning.reporting import files

    files.write_csv(out / table, rows, columns)
    files.write_json(out / index, {"data": name, "split": split, "indices": list(indices)})
    files.write_text(out / "report.html", page)
    for what, file in (("table", table), ("indices", index), ("page", "report.html")):
        say(f"{what:8} {out / file}")


def trained_on(given: Given, name: str) -> Any:
    """The classifier of `ckpt_path`. Raises UserError if it was trained on other data than `name`."""
    from cifar_lightning.api import load

    classifier = load(given["ckpt_path"], accelerator=given["accelerator"], trusted=given["trust"])
    own = classifier.config["data"].get("name")
    if own != name:
        raise UserError(f"ckpt_path={given['ckpt_path']} was trained on {own}, but the audit is of data={name}")
    return classifier


def fold_checkpoints(folder: Path) -> list[Path]:
    """The best checkpoints of all runs in a folder. Raises UserError if there is none."""
    found = sorted(folder.rglob("checkpoints/best.ckpt"))
    if not found:
        reason = "there is no such folder" if not folder.is_dir() else "there is no checkpoints/best.ckpt below it"
        raise UserError(f"runs={folder}: {reason}; give the folder of a sweep such as {SWEEP}")
    return found


def share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UserError(f"{name}={text}: must be a number above 0, at most 1")
    return value


def output_folder(text: str | None, kind: str) -> Path:
    """The folder that was asked for, or a new one."""
    if text:
        return output_path(Path(text).expanduser(), folder=True, key="output")
    path = Path("logs", "audit", f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{kind}")
    while path.exists():
        path = path.with_name(f"{path.name}_again")
    return output_path(path, folder=True, key="output")


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
