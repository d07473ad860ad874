"""Check a row of a table whose runs are gone: train what its name says, and compare with its figures."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.table_files import table_in
from cifar_lightning.runs.agreement import Finding

# Of a new run; the mean and the deviation come from a few runs only.
DEVIATIONS = 3.0

# A file may come from anyone: no class, folder or checkpoint of its choice is used.
ADMITTED = r"(?!.*(_target_|\$\{)|ckpt_path|teacher|trust|paths|hydra|logger|data\.(root|labels_file))\w[\w./]*="


@dataclass(frozen=True)
class Claim:
    """A row: its name, the overrides that it stands for, its cells by column, and the data's checksums in the notes."""

    name: str
    overrides: Sequence[str]
    cells: Mapping[str, str]
    checksums: Sequence[str]


def claims(text: str, file: Path) -> list[Claim]:
    """The rows of the first table in the text. Raises UserError for a text without one that `summarize` wrote."""
    table = table_in(text)
    if len(table) < 2 or table[0][0] != "run":
        raise UserError(f"{file} holds no table of runs: verify takes what summarize FOLDER out=FILE.md wrote")
    common = re.search(r"^In all runs: (.*)\.$", text, re.M)
    precision = re.search(r"^Precision: (\S+)\.$", text, re.M)
    checksums = re.findall(r"checksum ([0-9a-f]{16})", text)
    found = []
    for row in table[1:]:
        cells = dict(zip(table[0], row, strict=False))
        words = [*(common[1].split(", ") if common else []), *row[0].split(", ")]
        overrides = [word if "=" in word else f"experiment={word}" for word in words if word != "defaults"]
        if "defaults" in words:  # `resnet, defaults`: no experiment but a network
            overrides = [word.replace("experiment=", "model=") for word in overrides]
        if foreign := [word for word in overrides if not re.match(ADMITTED, word)]:
            raise UserError(f"{file}, row {row[0]}: verify does not run {foreign[0][:80]} from a file")
        used = cells.get("precision") or (precision[1] if precision else "auto")
        found.append(Claim(row[0], [*overrides, f"trainer.precision={used}"], cells, checksums))
    return found


def agrees(claim: Claim, metrics: Mapping[str, Any], whole: bool) -> list[Finding]:
    """What the row says beside one run of it; the accuracy if the whole run was repeated."""
    parameters = claim.cells.get("parameters", "-").replace(",", "")
    findings = [_same("parameters", parameters, str(metrics["parameters"]))]
    if claim.checksums:
        checksum = str(metrics.get("data_checksum"))
        claimed = checksum if checksum in claim.checksums else " or ".join(dict.fromkeys(claim.checksums))
        findings.append(_same("data checksum", claimed, checksum))
    return [*findings, _accuracy(claim, metrics)] if whole else findings


def _same(what: str, claimed: str, found: str) -> Finding:
    if claimed == "-":
        return Finding(what, None, "the row does not say")
    return Finding(what, claimed == found, "the same" if claimed == found else f"{claimed} in the table, {found} now")


def _accuracy(claim: Claim, metrics: Mapping[str, Any]) -> Finding:
    cell = claim.cells.get("test accuracy", "-")
    parts = re.fullmatch(r"([\d.]+)(?: ± ([\d.]+))? \((\d+)\)", cell)
    found = metrics.get("test/acc")
    if not parts or found is None:
        return Finding("test accuracy", None, "the row does not say")
    if claim.cells.get("checkpoint", metrics["checkpoint"]) != metrics["checkpoint"]:
        return Finding("test accuracy", None, f"the row is of {claim.cells['checkpoint']}.ckpt")
    words = f"{cell} in the table, {100 * found:.2f} now"
    if not parts[2]:
        return Finding("test accuracy", None, f"{words}; how far another seed may be is unknown")
    allowed = DEVIATIONS * float(parts[2]) * math.sqrt(1 + 1 / int(parts[3]))
    same = abs(100 * found - float(parts[1])) <= allowed
    return Finding("test accuracy", same, f"{words}: {'within' if same else 'beyond'} the {allowed:.2f} of a new seed")
