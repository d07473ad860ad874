"""How far a download is: a bar on a terminal, a line for every tenth elsewhere."""

import logging
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)


class Progress:
    """`with Progress(url, start, total) as progress: progress.update(done)`, all in bytes, total None if unknown."""

    def __init__(self, url: str, start: int, total: int | None) -> None:
        self.host, self.start, self.total = urlsplit(url).netloc, start, total
        self.tenth = 10 * start // total if total else 0
        console = Console(stderr=True)
        columns = (TextColumn("CIFAR-10 from {task.description}"), BarColumn(), DownloadColumn())
        self.bar = Bar(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self.on_terminal = console.is_terminal

    def __enter__(self) -> Self:
        verb = f"Going on after {self.start:,} bytes" if self.start else "Downloading CIFAR-10"
        log.info("%s from %s", verb, self.host)
        if self.on_terminal:
            self.bar.start()
            self.task = self.bar.add_task(self.host, total=self.total, completed=self.start)
        return self

    def update(self, done: int) -> None:
        if self.on_terminal:
            self.bar.update(self.task, completed=done)
        elif self.total and 10 * done // self.total > self.tenth:
            self.tenth = 10 * done // self.total
            log.info("%d %% of %.0f MB", 10 * self.tenth, self.total / 1e6)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.on_terminal:
            self.bar.stop()
