"""Find the official files of a data set: unpacked in their folder, else in the archive, else download the archive.

Whatever a server sends is checked against the official MD5 before it is used. A download that was interrupted is
resumed, by any server.
"""

import http.client
import logging
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from rich.progress import DownloadColumn, TransferSpeedColumn

from cifar_lightning.console import progress
from cifar_lightning.data.archive import folder_in, unpack
from cifar_lightning.data.official import Official, checksum, known_as, mistaken
from cifar_lightning.errors import UserError, regular

CONNECT_SECONDS = 5.0  # for all servers together, so that a missing network is soon reported
STALL_SECONDS = 10.0  # without a byte
SLOW_AFTER_SECONDS = 15.0
SLOW_BYTES_PER_SECOND = 1_000_000  # below this speed the other servers are tried first
ATTEMPTS = 10  # with one server that cuts the connection, as long as each gets further
SPACE = 2.2  # needed for archive and files, as a multiple of the archive's size
CHUNK = 1 << 18

log = logging.getLogger(__name__)


def find_or_download(official: Official, root: Path, verify: bool = True, urls: Sequence[str] | None = None) -> Path:
    """The folder of the official files under `root`, complete; the files in it are not checked here.

    `urls` replaces the known addresses; `verify=False` accepts another archive, found or from one of these.
    Raises UserError where the files can't be had.
    """
    root = root.expanduser()
    root = root.parent if root.name == official.folder else root
    folder, archive = root / official.folder, root / official.archive
    try:
        if folder.is_dir():
            return folder
        if folder.exists():
            raise UserError(f"{folder} is not a folder. Delete it, or give another folder with data.root=...")
        # Nobody wants 170 MB among their photos, or within another data set's folder.
        if not archive.exists() and (is_else := mistaken(official, root)) and is_else.startswith(f"{root} "):
            raise UserError(is_else)
        faults: dict[str, str] = {}
        servers = _reachable(official.urls if urls is None else urls, faults) if not regular(archive).is_file() else []
        if not servers and not archive.is_file():
            raise _not_found(official, archive, faults)
        with _locked(official, root):
            if folder.is_dir():  # another process has downloaded it meanwhile
                return folder
            if archive.is_file():
                _check_found(official, archive, verify)
            else:
                _download(official, archive, servers, faults, verify or urls is None)
            log.info("Unpacking %s", archive)
            unpack(official, archive, folder)
    except OSError as error:  # of the disk; network errors are in `faults`
        where, why = error.filename or root, error.strerror or str(error)
        raise UserError(
            f"{official.title} can't be written to {where}: {why}. Give another folder with data.root=..."
        ) from error
    return folder


@contextmanager
def _locked(official: Official, root: Path) -> Iterator[None]:
    """One process at a time. The others wait, and then find what it has downloaded."""
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".{official.folder}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info("Waiting for another run that downloads %s to %s", official.title, root)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_found(official: Official, archive: Path, verify: bool) -> None:
    found, expected = checksum(archive), official.archive_checksum
    if found == expected:
        return
    if what := known_as(folder_in(archive), official):
        raise UserError(f"{archive} is {what}")
    if not verify:
        log.warning("data.verify=false: %s is not the official archive (MD5 %s)", archive, found.md5)
        return
    fault = f"is not the official archive (MD5 {found.md5} instead of {expected.md5})"
    if found.size < expected.size:
        fault = f"is cut short, or not the official archive ({found.size:,} of {expected.size:,} bytes)"
    raise UserError(
        f"{archive} {fault}. Delete it and run again to download it, give another folder with data.root=..., "
        "or use it as it is with data.verify=false"
    )


def _reachable(urls: Sequence[str], faults: dict[str, str]) -> list[str]:
    """The servers that accept a connection, in order; the reasons of the others go into `faults`."""
    if urllib.request.getproxies():
        return list(urls)
    answers: dict[str, str] = {}

    def connect(url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
            answers[url] = ""
        except (OSError, ValueError) as error:
            answers[url] = _reason(error)

    # At once, in threads that are not waited for beyond the deadline: a name look-up can't be interrupted.
    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + CONNECT_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    faults.update({url: answers.get(url, "no answer") for url in urls})
    return [url for url in urls if not faults[url]]


def _download(official: Official, archive: Path, servers: Sequence[str], faults: dict[str, str], verify: bool) -> None:
    """Try the servers in turn; each continues where the one before stopped. Slow ones come last, the fastest first."""
    partial = archive.with_name(f"{archive.name}.part")
    needed, free = (
        SPACE * official.archive_checksum.size - _size(partial),
        shutil.disk_usage(partial.parent).free,
    )
    if free < needed:
        raise UserError(
            f"{official.title} needs {needed / 1e6:,.0f} MB in {partial.parent}, where {free / 1e6:,.0f} MB are free. "
            "Make room, or give another folder with data.root=..."
        )
    slow: dict[str, float] = {}

    def attempts() -> Iterator[tuple[str, bool]]:
        yield from ((url, False) for url in servers)
        yield from ((url, True) for url in sorted(slow, key=lambda url: -slow[url]))

    for url, patient in attempts():
        try:
            _fetch(official, url, partial, verify, patient)
            partial.replace(archive)
            return
        except _Failed as error:
            faults[url] = str(error)
            if error.speed is not None:
                slow[url] = error.speed
            log.warning("%s: %s", urlsplit(url).netloc, error)
    raise _not_found(official, archive, faults)


def _fetch(official: Official, url: str, partial: Path, verify: bool, patient: bool) -> None:
    """Leave the whole archive in `partial`, verified; or raise `_Failed`, with what has arrived left there."""
    if not verify:
        partial.unlink(missing_ok=True)  # no checksum would tell that it began as another archive
    for _ in range(ATTEMPTS):
        before = _size(partial)
        try:
            if not verify or before < official.archive_checksum.size:
                _append(official, url, partial, verify, patient)
        except _Failed as error:
            if error.speed is None and _size(partial) > before:  # cut off, but further than before: try again
                continue
            raise
        if not verify or checksum(partial) == official.archive_checksum:
            return
        partial.unlink()
        if before == 0:  # else the wrong bytes may have come from elsewhere
            raise _Failed("sends other bytes than the official ones")
    raise _Failed("cuts the connection again and again")


def _append(official: Official, url: str, partial: Path, verify: bool, patient: bool) -> None:
    start, largest = _size(partial), official.archive_checksum.size
    with _open(url, start) as response:
        total = _announced(response, start)
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        if verify and total not in (None, largest):
            raise _Failed(f"sends another file ({total:,} bytes)")
        title = f"{official.title} from {urlsplit(url).netloc}"
        log.info("%s %s", f"Resuming after {start:,} bytes:" if start else "Downloading", title)
        shown = progress(
            title, total, f"{(total or 0) / 1e6:.0f} MB", DownloadColumn(), TransferSpeedColumn(), start=start
        )
        with partial.open("ab" if start else "wb") as file, shown as update:
            done, began = start, time.monotonic()
            while (chunk := _read(response)) and not (verify and done > largest):
                file.write(chunk)
                done += len(chunk)
                update(done)
                elapsed = time.monotonic() - began
                if not patient and elapsed > SLOW_AFTER_SECONDS and done - start < SLOW_BYTES_PER_SECOND * elapsed:
                    speed = (done - start) / elapsed
                    raise _Failed(f"slow ({speed / 1000:,.0f} kB/s)", speed)
    if total is not None and done < total:
        raise _Failed(f"cut the connection after {done:,} of {total:,} bytes")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "cifar-lightning", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(url, 0)
        raise _Failed(f"answers {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Failed(_reason(error)) from error


def _announced(response: http.client.HTTPResponse, start: int) -> int | None:
    """The size of the whole file according to the response."""
    if response.status == http.client.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        if not content_range.startswith(f"bytes {start}-"):
            raise _Failed("sends another range than the one asked for")
        total = content_range.rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isascii() and total.isdigit() else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error)) from error


class _Failed(Exception):
    """A server failed; the message says how. speed: bytes per second, if it was only too slow."""

    def __init__(self, message: str, speed: float | None = None) -> None:
        super().__init__(message)
        self.speed = speed


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no byte for {STALL_SECONDS:.0f} s"
    if isinstance(cause, socket.gaierror):
        return "unknown name"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _size(partial: Path) -> int:
    return regular(partial).stat().st_size if partial.exists() else 0


def _not_found(official: Official, archive: Path, faults: dict[str, str]) -> UserError:
    is_else = mistaken(official, archive.parent)
    hint = f" {is_else}." if is_else else ""
    asked = ", ".join(f"{urlsplit(url).netloc or url} ({fault or 'not tried'})" for url, fault in faults.items())
    return UserError(
        f"{official.title} was not found and can't be downloaded. Looked for {archive.with_name(official.folder)} and "
        f"{archive}; tried {asked or 'no server'}.{hint} Either put the archive at {archive}, give its folder with "
        "data.root=..., or train on the bundled digits with data=digits."
    )
