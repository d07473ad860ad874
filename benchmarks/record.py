"""Command-line options, measuring in turns, and the section in RESULTS.md, for all benchmarks."""

import argparse
import datetime
import io
import os
import re
import statistics
import subprocess
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
    """The outcome of a benchmark: its goal, what was expected when it was written, and what was measured."""

    goal: str
    expected: str
    seen: str
    rows: Sequence[Row]


def parser(name: str, description: str, examples: str, *, repetitions: int) -> argparse.ArgumentParser:
    """The options that all benchmarks share; `repetitions` is the default number of turns."""
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root = os.environ.get("CIFAR10_ROOT", "data")
    result.add_argument("--root", type=Path, default=Path(root), help=f"folder of CIFAR-10 (default: {root})")
    result.add_argument("--digits", action="store_true", help="use the embedded digits, to try the benchmark out")
    result.add_argument("--repetitions", type=positive, default=repetitions, help=f"turns (default: {repetitions})")
    result.add_argument("--threads", type=positive, help="torch threads in this process (default: one per core)")
    result.add_argument("--out", type=Path, default=RESULTS, help="file of results (default: benchmarks/RESULTS.md)")
    return result


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return int(text)


def main(
    options: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Record], argv: Sequence[str] | None
) -> int:
    """Measure, print the section and write it into the file; returns the exit code."""
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
    """The overrides that choose the data. Raises UserError if the official files are missing; nothing is downloaded."""
    if arguments.digits:
        return ["data=digits", "data.val_size=0.2"]  # the recipes' 10,000 exceed the digits
    if not (arguments.root / "cifar-10-batches-py").is_dir():
        raise UserError(
            f"no cifar-10-batches-py in {arguments.root}: give its folder with --root or CIFAR10_ROOT, or try the "
            "benchmark out with --digits"
        )
    return [f"data.root='{arguments.root.absolute()}'"]


def in_turns(programs: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """The results of each program, by name: all programs in turns, once as a warm-up and then `repetitions` times.

    In turns, so that other load on the machine affects all of them.
    """
    results: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, program in programs.items():
            result = program()
            if repetition:
                results[name].append(result)
    return results


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, so that progress bars are drawn, and discards what is written."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def run_python(arguments: Sequence[str], folder: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in `folder`. Raises UserError with the last line of its messages if it fails."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if check and process.returncode:
        raise UserError(f"the run failed: {(process.stderr.strip() or 'no message').splitlines()[-1]}")
    return process


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of paired turns."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def circumstances(name: str, argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """One line with command, date, hardware, versions and data."""
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
    """Replace the section of this name in the file, or add it; sections are in alphabetical order."""
    sections = {}
    if path.exists():
        for found in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            sections[found.split("\n", 1)[0].removeprefix("## ")] = found.rstrip() + "\n"
    sections[name] = text
    write_text(path, "\n".join([HEADING, *(sections[key] for key in sorted(sections))]))
