"""Show a score card: rows for the terminal and for a README, and a page. A card is what its card.json holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar_lightning.reporting.html import Block, Picture, render_page
from cifar_lightning.reporting.tables import NOTHING, Row, duration, number, percent

TILES = {
    ("accuracy", "acc"): "accuracy",
    ("calibration", "ece"): "calibration error",
    ("corruptions", "acc_corrupted"): "accuracy, corrupted",
    ("attacks", "acc_pgd_linf_8"): "accuracy, attacked",
}


def value(measure: Mapping[str, Any], key: str = "value") -> str:
    """The number in its unit."""
    figure, unit = measure[key], measure["unit"]
    if unit == "percent" or figure is None:
        return percent(figure)
    if unit == "bytes":
        return f"{figure / 1e6:,.3f} MB"
    return f"{figure:,.2f} ms" if unit == "ms" else number(figure, 0 if unit == "count" else 4)


def interval(measure: Mapping[str, Any]) -> str:
    """Both ends, the unit once: "71.45 to 73.20 %"."""
    if measure["low"] is None:
        return NOTHING
    low, high = value(measure, "low"), value(measure, "high")
    unit = next((unit for unit in (" %", " ms", " MB") if low.endswith(unit)), "")
    return f"{low.removesuffix(unit)} to {high}"


def measure_rows(measures: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    return [
        {
            "": measure["words"],
            "value": value(measure),
            "95 % interval": interval(measure),
            "images": number(measure["images"] or None),
        }
        for measure in measures.values()
    ]


def short_rows(card: Mapping[str, Any]) -> list[Row]:
    """The headlines of every part, for a README."""
    rows = []
    for part in card["parts"].values():
        chosen = {key: part["measures"][key] for key in part["headlines"] or part["measures"]}
        rows += [{"part": part["title"], "measure": row.pop(""), **row} for row in measure_rows(chosen)]
    return rows


def card_page(card: Mapping[str, Any], found: Mapping[str, Picture], folder: Path) -> str:
    """The page of a card with the figures found, by their names."""
    sections: dict[str, list[Block]] = {part["title"]: part_blocks(part, found) for part in card["parts"].values()}
    missing = [{"part": name, "why": reason} for name, reason in card["left_out"].items()]
    if missing:
        sections["Left out"] = [("table", missing, "Parts that could not be made")]
    sections["How it was made"] = [("code", card["command"]), ("facts", facts(card))]
    return render_page(
        title=f"Score card of {card['name']}",
        subtitle="Every number with its 95 % interval and the number of images",
        tiles=[tile(card, *key, words) for key, words in TILES.items()],
        sections=sections,
        folder=folder,
    )


def part_blocks(part: Mapping[str, Any], found: Mapping[str, Picture]) -> list[Block]:
    """The table beside the part's figure, or above several."""
    pictures: list[Block] = [("figure", found[name]) for name in part["figures"] if name in found]
    notes: list[Block] = [("note", note) for note in part["notes"]]
    table: Block = ("table", measure_rows(part["measures"]), f"{part['title']}, in numbers")
    if len(pictures) == 1:
        return [("pair", [table, *pictures]), *notes]
    return [table, *notes, *([("pair", pictures)] if pictures else [])]


def tile(card: Mapping[str, Any], part: str, key: str, words: str) -> tuple[str, str, str]:
    measure = card["parts"].get(part, {}).get("measures", {}).get(key)
    return (words, value(measure), interval(measure)) if measure else (words, NOTHING, "")


def facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Checkpoint", card["checkpoint"]),
        ("Data", f"{card['data']}, checksum {card['data_checksum']}"),
        ("Intervals", "shares: Wilson's; means: normal; other statistics: bootstrap over the images"),
        ("Precision", f"{card['precision']}, whatever the run was trained in"),
        ("Looks", " ".join(card["looks"])),
        ("Time", duration(card["seconds"])),
        ("Hardware", card["hardware"]),
        ("Versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())),
        ("Date", card["date"]),
    ]
