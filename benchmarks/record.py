"""What the benchmarks share: options, measuring in turns, and each one's own section of RESULTS.md."""

import argparse
import datetime
import os
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import write_text
from cifar_lightning.reporting.tables import Row, markdown_table
from cifar_lightning.runs.record import processor_name, versions

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "# Benchmarks\n\nWritten by `python -m benchmarks.<name>`: each run replaces its own section.\n"


@dataclass(frozen=True)
class Record:
    """One benchmark's outcome: what was to be reached, what was expected when it was written, what was seen."""

    goal: str
    expected: str
    seen: str
    rows: Sequence[Row]


def parser(name: str, description: str, examples: str, *, repetitions: int) -> argparse.ArgumentParser:
    """The options of every benchmark; `repetitions` is the default number of turns."""
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root = os.environ.get("CIFAR10_ROOT", "data")
    result.add_argument("--root", type=Path, default=Path(root), help=f"the folder of CIFAR-10 (default: {root})")
    result.add_argument("--digits", action="store_true", help="the embedded digits instead: only to try it out")
    result.add_argument("--repetitions", type=positive, default=repetitions, help=f"turns (default: {repetitions})")
    result.add_argument("--threads", type=positive, help="of torch in this process (default: one a core)")
    result.add_argument(
        "--out", type=Path, default=RESULTS, help="the file of results (default: benchmarks/RESULTS.md)"
    )
    return result


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def main(
    options: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Record], argv: Sequence[str] | None
) -> int:
    """Measure, print the section and write it; returns the exit code."""
    arguments = options.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    name = options.prog.rpartition(".")[2]
    try:
        text = section(name, measure(arguments), circumstances(name, sys.argv[1:] if argv is None else argv, arguments))
        print(text)
        update(arguments.out, name, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def data_overrides(arguments: argparse.Namespace) -> list[str]:
    """The overrides that choose the data. Raises UserError where the official files are missing: none are fetched."""
    if arguments.digits:
        return ["data=digits", "data.val_size=0.2"]  # the recipes' 10,000 are more than there are
    if not (arguments.root / "cifar-10-batches-py").is_dir():
        raise UserError(
            f"no cifar-10-batches-py in {arguments.root}: name its folder with --root or CIFAR10_ROOT, or try the "
            "benchmark out with --digits"
        )
    return [f"data.root='{arguments.root.absolute()}'"]


def in_turns(programs: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """What each program returns, by name: once for warming up, then `repetitions` times, one after the other.

    In turns, so that whatever else the machine does hits all of them.
    """
    figures: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, program in programs.items():
            figure = program()
            if repetition:
                figures[name].append(figure)
    return figures


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over the turns of the ratio of two neighbours."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def circumstances(name: str, argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """Command, date, hardware, versions and data, on a line each."""
    shown = [word for word in argv if not word.startswith(("--root", "--out"))]
    paths = {str(arguments.root), str(arguments.out)}
    command = " ".join([f"python -m benchmarks.{name}", *(word for word in shown if word not in paths)])
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"`{command}`, {datetime.date.today()}; medians of {arguments.repetitions}. "
        f"{cores} core{'s' * (cores != 1)} of {processor_name()}, torch with {threads} thread{'s' * (threads != 1)}, "
        f"{device}. " + ", ".join(f"{package} {number}" for package, number in versions().items()) + ". "
        f"Data: {'the embedded digits' if arguments.digits else 'CIFAR-10, official files'}."
    )


def section(name: str, record: Record, where: str) -> str:
    lines = [f"## {name}", "", f"- Goal: {record.goal}", f"- Expected: {record.expected}", f"- Seen: {record.seen}", ""]
    return "\n".join([*lines, markdown_table(record.rows), where, ""])


def update(path: Path, name: str, text: str) -> None:
    """Put a section into the file in the place of its last version; the others stay, in alphabetical order."""
    sections = {}
    if path.exists():
        for found in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            sections[found.split("\n", 1)[0].removeprefix("## ")] = found.rstrip() + "\n"
    sections[name] = text
    write_text(path, "\n".join([HEADING, *(sections[key] for key in sorted(sections))]))
