"""Many small runs: the jobs of one sweep, which share a process, against a process for each, one after another.

Both train the same networks from the same seeds. Training takes equally long in both and is left out of the ratio,
which compares the time beyond it. The sweep's time includes its summary.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import record

GOAL = "the time beyond training at least 1.5x shorter in a sweep"
EXPECTED = "a separate process costs each job four to five seconds of imports, and reading the data"
EXAMPLES = """\
  python -m benchmarks.sweep                           12 jobs twice: about 3 minutes
  python -m benchmarks.sweep --jobs 40
"""


@dataclass(frozen=True)
class Outcome:
    seconds: float  # of the whole command
    training: float  # seconds of training in all jobs
    jobs: int

    @property
    def beyond(self) -> float:
        return self.seconds - self.training


def measure(arguments: argparse.Namespace) -> record.Record:
    common = [*record.data_overrides(arguments), "model=cnn2", "trainer.max_epochs=1"]
    common.append(f"trainer.limit_train_batches={arguments.steps}")
    seeds = [str(seed) for seed in range(arguments.jobs)]
    together = [["-m", *common, f"seed={','.join(seeds)}"]]
    apart = [[*common, f"seed={seed}"] for seed in seeds]
    programs = {"one sweep": together, "processes": apart}
    turns = [{name: run(commands) for name, commands in programs.items()} for _ in range(arguments.repetitions)]
    rows = []
    for name in programs:
        outcomes = [turn[name] for turn in turns]
        seconds, beyond = (statistics.median(getattr(o, key) for o in outcomes) for key in ("seconds", "beyond"))
        rows.append(
            {
                "jobs as": name,
                "jobs/minute": f"{60 * arguments.jobs / seconds:.1f}",
                "seconds": f"{seconds:.1f}",
                "of training": f"{seconds - beyond:.1f}",
                "beyond, s/job": f"{beyond / arguments.jobs:.2f}",
            }
        )
    ratio = statistics.median(turn["processes"].beyond / turn["one sweep"].beyond for turn in turns)
    return record.Record(GOAL, EXPECTED, f"{ratio:.2f}x", rows)


def run(commands: Sequence[Sequence[str]]) -> Outcome:
    """Run `python -m cifar_lightning` with each of these argument lists, one after another."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        start = time.perf_counter()
        for arguments in commands:
            record.run_python(["-m", "cifar_lightning", *arguments, f"paths.log_dir={folder}"], folder)
        seconds = time.perf_counter() - start
        metrics = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("metrics.json")]
    return Outcome(seconds, sum(run["train_seconds"] for run in metrics), len(metrics))


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("sweep", __doc__ or "", EXAMPLES, repetitions=1)
    options.add_argument("--jobs", type=record.positive, default=12, help="number of jobs (default: 12)")
    options.add_argument("--steps", type=record.positive, default=100, help="training steps per job (default: 100)")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
