"""The score card of a checkpoint, which is `evaluate card=…`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifar_lightning.commands.parser import Given, Key, output_path
from cifar_lightning.config.signatures import choices_of
from cifar_lightning.console import progress, say
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.reporting import ledger
from cifar_lightning.runs.folders import command, folder_of

PARTS = choices_of("cifar_lightning.evaluation.card", "PartName")
KEYS = {
    "card": Key("a score card: true, or some of its parts, such as [calibration,ood]"),
    "corrected": Key("for the card: a file of corrected labels of test images"),
    "ood": Key("for the card: other data sets, such as [cifar100,svhn:FOLDER], if not those in the data folder"),
    "card_images": Key("for the card: images for each corruption, twice as many as for attacks; or all", "2000"),
    "keep_temperature": Key("for the card: write the temperature into the checkpoint", "false", ("true", "false")),
}
WITHOUT_EFFECT = ("split", "tta", "precision")  # on a card
STEPS = 1000  # steps of the progress bar


def run(given: Given) -> int:
    names = part_names(given["card"])
    typed = [word.partition("=")[0] for word in given["typed"]]
    if unused := [name for name in WITHOUT_EFFECT if name in typed]:
        raise UserError(f"{unused[0]} has no effect with card: the test set is scored as it is, in single precision")
    most = image_count(given["card_images"])
    others = other_data(given["ood"]) if given["ood"] else None
    if others is not None and "ood" not in names:
        raise UserError("ood has no effect without the part ood: add it to card=[…]")
    keep = given["keep_temperature"] == "true"
    if keep and "calibration" not in names:
        raise UserError("keep_temperature=true needs the part calibration: add it to card=[…]")
    checkpoint: Path = given["ckpt_path"][0]
    if len(given["ckpt_path"]) > 1:
        raise UserError("card scores one network: name one checkpoint")
    test_ledger = ledger.ledger_of(checkpoint, given["paths.log_dir"])
    out = output_path(Path(given["out"] or checkpoint.with_name(f"{checkpoint.stem}_card")).expanduser(), folder=True)

    # These import torch, which help and errors do without.
    from cifar_lightning.evaluation.card import missing
    from cifar_lightning.evaluation.looks import note_look

    start = time.perf_counter()
    subject, provenance = subject_of(given, checkpoint, test_ledger, most, others, "ood" in names)
    left_out = {name: reason for name in names if (reason := missing(name, subject))}
    if left_out and len(names) < len(PARTS):
        raise UserError(next(f"card={name}: {reason}" for name, reason in left_out.items()))
    if keep and not len(subject.data.val):
        raise UserError("keep_temperature=true: the checkpoint's run has no validation split (data.val_size=0)")
    words, config, judged = command("evaluate", *given["typed"]), subject.classifier.config, owner(checkpoint)
    look = note_look(test_ledger, config, subject.data, command=words, run=judged, unseal=given["unseal"])
    parts = scored(subject, [name for name in names if name not in left_out])
    choices = config.get("choices", {})
    card = {
        "name": " ".join(str(choices[key]) for key in ("experiment", "model") if choices.get(key)) or checkpoint.name,
        "checkpoint": str(checkpoint),
        "seed": config.get("seed"),
        "parts": {name: plain_part(part) for name, part in parts.items()},
        "left_out": left_out,
        "card_images": most,
        "seconds": time.perf_counter() - start,
        "command": words,
        **look,
        **provenance,
    }
    card["looks"] = ledger.looks([(out, {"test/acc": None, **card})], test_ledger)
    write(out, card, {name: figure for part in parts.values() for name, figure in part.figures.items()})
    if keep:
        from cifar_lightning.checkpoints.temperature import write_temperature

        write_temperature(checkpoint, parts["calibration"].details["temperature"])
        say(f"temperature  {parts['calibration'].details['temperature']:.4f}, kept in {checkpoint}")
    return 0


def owner(checkpoint: Path) -> Path:
    """The run's folder, or the file where it is in none: what the ledger names."""
    return folder_of(checkpoint) or checkpoint


def scored(subject: Any, names: Sequence[str]) -> dict[str, Any]:
    """The parts, with a bar that says which is being made."""
    from rich.progress import TimeElapsedColumn

    from cifar_lightning.evaluation.card import score

    with progress("card", STEPS, "the card", TimeElapsedColumn()) as update:
        return score(subject, names, lambda done, what: update(int(done * STEPS), what))


def part_names(text: str) -> list[str]:
    """The parts to make. Raises UserError for one that there is not."""
    words = [word.strip() for word in text.strip("[]").split(",")]
    if words == ["true"]:
        return list(PARTS)
    for word in words:
        if word not in PARTS:
            raise UserError(f"card={text}: there is no part {word or '(empty)'}{nearest(word, ['true', *PARTS])}")
    return [name for name in PARTS if name in words]


def image_count(text: str) -> int | None:
    """The number of images; None for all of them."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 2:
        raise UserError(f"card_images={text}: must be an integer of at least 2, or all")
    return int(text)


def other_data(text: str) -> dict[str, Path | None]:
    """The folder of each data set in [NAME,NAME:FOLDER], None where it is not given. Raises UserError."""
    folders: dict[str, Path | None] = {}
    for word in text.strip("[]").split(","):
        name, _, folder = word.strip().partition(":")
        if name not in SETS:
            raise UserError(f"ood={text}: there is no data set {name or '(empty)'}{nearest(name, list(SETS))}")
        if SETS[name].train_images is None and not folder:
            raise UserError(f"ood={text}: say where the images of {name} are, ood=[{name}:PATH]")
        folders[name] = Path(folder).expanduser() if folder else None
    return folders


def subject_of(
    given: Given,
    checkpoint: Path,
    test_ledger: Path,
    most: int | None,
    others: dict[str, Path | None] | None,
    wanted: bool,
) -> tuple[Any, dict[str, Any]]:
    """What is scored, with its logits, and where it was scored.

    others: the folders of other data sets, None for those in the data folder; wanted: whether any are needed.
    """
    import torch

    from cifar_lightning.checkpoints.load import load_classifier, load_data
    from cifar_lightning.console import adopt_lightning_loggers
    from cifar_lightning.evaluation.card import Subject
    from cifar_lightning.evaluation.corrected_labels import corrected_labels
    from cifar_lightning.evaluation.inference import Classifier
    from cifar_lightning.evaluation.looks import check_seal
    from cifar_lightning.evaluation.other_data import other_images, present
    from cifar_lightning.evaluation.testing import build_evaluator, chosen_split, kept_images
    from cifar_lightning.runs import record

    adopt_lightning_loggers()
    module = load_classifier(checkpoint, given["trust"])
    check_seal(module.config, test_ledger, owner(checkpoint), given["unseal"])
    ledger.check_writable(test_ledger)
    trainer = build_evaluator(module.config, given["accelerator"], "32-true")
    data = load_data(module.config, given["data.root"], checkpoint, given["trust"])
    test = chosen_split(data, "test", module.class_names)
    if test.images.dtype != torch.uint8:
        raise UserError("card needs images as bytes (uint8), which a data module of your own has not")
    excluded, corrected = (given[key] and Path(given[key]).expanduser() for key in ("exclude", "corrected"))
    kept = kept_images(test, data.name, excluded) if excluded else None
    labels = corrected_labels(test, data.name, corrected, module.class_names) if corrected else None
    root = Path(getattr(data, "root", ".")).expanduser()
    if others is not None and data.name in others:
        raise UserError(f"ood={data.name}: the checkpoint was trained on it; name other data")
    folders = present(data.name, root) if others is None else {n: f or root for n, f in others.items()}
    images = other_images(folders, data.image_shape) if wanted else {}
    classifier = Classifier(module, trainer.strategy.root_device)
    subject = Subject(classifier, data, root, test, most or len(test), kept, labels, images)
    return subject, record.provenance(trainer, data)


def plain_part(part: Any) -> dict[str, Any]:
    return {
        "title": part.title,
        "measures": {key: asdict(measure) for key, measure in part.measures.items()},
        "notes": list(part.notes),
        "details": dict(part.details),
        "headlines": list(part.headlines),
        "figures": list(part.figures),
    }


def write(out: Path, card: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
    """Write the card as JSON, page and Markdown, with its figures; print it, and say where it is."""
    from rich import get_console

    from cifar_lightning.reporting import card_page, files, html, tables
    from cifar_lightning.runs import record

    record.save_figures(out, drawn)
    files.write_json(out / "card.json", card)
    files.write_text(out / "card.md", tables.markdown_table(card_page.short_rows(card)))
    files.write_text(out / "card.html", card_page.card_page(card, html.pictures(out / "figures"), out))
    for part in card["parts"].values():
        get_console().print(tables.rich_table(card_page.measure_rows(part["measures"]), part["title"]))
        for note in part["notes"]:
            say(f"  {note}")
    for note in card["looks"]:
        say(note)
    for name, reason in card["left_out"].items():
        say(f"left out: {name}: {reason}")
    for what, file in (("numbers", "card.json"), ("page", "card.html"), ("for a README", "card.md")):
        say(f"{what:13}{out / file}")
