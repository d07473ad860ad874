"""Fetching CIFAR-10 from a server on loopback that behaves as servers do."""

import logging
import os
import re
import resource
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from helpers.archive_server import ArchiveServer
from helpers.packing import ARCHIVE, FOLDER, assert_fetched

from cifar_lightning.data import download
from cifar_lightning.data.download import find_or_download
from cifar_lightning.data.official import Checksum
from cifar_lightning.errors import UserError

PART = f"{ARCHIVE}.part"


@pytest.fixture
def serve():
    servers = []

    def start(content, **behaviour):
        server = ArchiveServer(content)
        vars(server).update(behaviour)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop.set()
        server.shutdown()
        server.server_close()


def absent():
    """The address of a server that was there a moment ago."""
    server = ArchiveServer(b"")
    server.shutdown()
    server.server_close()
    return server.url


def test_folder_is_taken_before_the_archive_and_the_archive_before_a_download(tmp_path, small, official, packed, serve):
    server = serve(official)
    assert find_or_download(small, tmp_path, urls=[server.url]) == tmp_path / FOLDER
    assert_fetched(tmp_path, packed)
    assert server.ranges == [None]

    for path in (tmp_path / FOLDER).iterdir():
        path.unlink()
    (tmp_path / FOLDER).rmdir()
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)

    (tmp_path / ARCHIVE).unlink()
    find_or_download(small, tmp_path, urls=[server.url])
    assert server.ranges == [None]


def test_cut_connection_is_resumed_where_it_was_cut(tmp_path, small, official, packed, serve):
    server = serve(official, cut_after=300_000)
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges == [None, *(f"bytes={at}-" for at in range(300_000, len(official), 300_000))]


def test_download_of_an_earlier_run_is_resumed(tmp_path, small, official, packed, serve):
    server = serve(official)
    (tmp_path / PART).write_bytes(official[:123_456])
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges == ["bytes=123456-"]


def test_part_that_is_whole_already_is_not_asked_for_again(tmp_path, small, official, packed, serve):
    server = serve(official)
    (tmp_path / PART).write_bytes(official)
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges == []


@pytest.mark.parametrize("rest", [b"rubbish", b"rubbish" * 500_000])
def test_part_of_something_else_is_thrown_away(tmp_path, small, official, packed, serve, rest):
    server = serve(official)
    (tmp_path / PART).write_bytes(rest)
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges[-1] is None


def test_a_pipe_in_the_place_of_the_part_is_refused(tmp_path, small, official, serve):
    os.mkfifo(tmp_path / PART)
    with pytest.raises(UserError, match="is a pipe, socket or device"):
        find_or_download(small, tmp_path, urls=[serve(official).url])


def test_server_that_ignores_range_sends_it_all(tmp_path, small, official, packed, serve):
    server = serve(official, honours_range=False)
    (tmp_path / PART).write_bytes(official[:123_456])
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges == ["bytes=123456-"]


def test_stalled_server_is_left_for_the_next_one(tmp_path, small, official, packed, serve, monkeypatch, caplog):
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    first, second = serve(official, stall_after=200_000), serve(official)
    first.honours_range = False  # its second attempt gets no further
    find_or_download(small, tmp_path, urls=[first.url, second.url])
    assert_fetched(tmp_path, packed)
    assert second.ranges == ["bytes=200000-"]
    assert "no byte for" in caplog.text


def test_slow_server_is_left_for_a_faster_one(tmp_path, small, official, packed, serve, monkeypatch):
    monkeypatch.setattr(download, "SLOW_AFTER_SECONDS", 0.3)
    slow, fast = serve(official, bytes_per_second=100_000), serve(official)
    find_or_download(small, tmp_path, urls=[slow.url, fast.url])
    assert_fetched(tmp_path, packed)
    assert int(fast.ranges[0].strip("bytes=-")) >= 20_000


def test_where_all_are_slow_the_fastest_is_waited_for(tmp_path, small, official, packed, serve, monkeypatch):
    monkeypatch.setattr(download, "SLOW_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(download, "SLOW_BYTES_PER_SECOND", 10_000_000)
    slow, faster = serve(official, bytes_per_second=100_000), serve(official, bytes_per_second=900_000)
    find_or_download(small, tmp_path, urls=[slow.url, faster.url])
    assert_fetched(tmp_path, packed)
    assert (len(slow.ranges), len(faster.ranges)) == (1, 2)


@pytest.mark.parametrize("wrong", ["other bytes", "too few", "too many", "an error"])
def test_wrong_bytes_are_left_for_the_next_server(tmp_path, small, official, packed, serve, wrong):
    contents = {
        "other bytes": official[:-1] + b"?",
        "too few": official[:1000],
        "too many": official + b"?",
        "an error": None,
    }
    bad, good = serve(contents[wrong]), serve(official)
    find_or_download(small, tmp_path, urls=[bad.url, good.url])
    assert_fetched(tmp_path, packed)
    assert (bad.ranges, good.ranges) == ([None], [None])


def test_archive_of_another_sum_is_accepted_from_ones_own_server_only_unverified(
    tmp_path, small, official, packed, serve, monkeypatch
):
    small = replace(small, archive_checksum=Checksum(len(official), "0" * 32))
    server = serve(official)
    with pytest.raises(UserError, match="sends other bytes than the official ones"):
        find_or_download(small, tmp_path, urls=[server.url])
    assert not (tmp_path / PART).exists()
    find_or_download(small, tmp_path, verify=False, urls=[server.url])
    assert_fetched(tmp_path, packed)


def test_without_network_and_files_one_message_says_what_to_do(tmp_path, small, official):
    root = tmp_path / "data"
    with pytest.raises(UserError) as caught:
        find_or_download(small, root, urls=[absent(), "http://unknown.invalid/x"])
    for part in (root / FOLDER, root / ARCHIVE, "Connection refused", "unknown.invalid", "data.root=", "data=digits"):
        assert str(part) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not root.exists()


def test_server_that_never_answers_is_not_waited_for(tmp_path, small, official, monkeypatch):
    over = threading.Event()

    def never(address, timeout):
        over.wait()
        raise TimeoutError

    monkeypatch.setattr(download.socket, "create_connection", never)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"a\.invalid \(no answer\), b\.invalid \(no answer\)"):
        find_or_download(small, tmp_path, urls=["https://a.invalid/x", "https://b.invalid/x"])
    over.set()


def test_failed_download_keeps_its_part_for_the_next_run(tmp_path, small, official, packed, serve):
    server = serve(official, cut_after=100_000, honours_range=False)
    with pytest.raises(UserError, match="cut the connection after 100,000 of"):
        find_or_download(small, tmp_path, urls=[server.url])
    assert (tmp_path / PART).read_bytes() == official[:100_000]
    assert not (tmp_path / FOLDER).exists()


def test_interrupted_download_keeps_its_part_and_frees_the_lock(tmp_path, small, official, packed, serve, monkeypatch):
    server = serve(official)

    @contextmanager
    def interrupt(*_, **__):
        def update(done):
            if done > 200_000:
                raise KeyboardInterrupt

        yield update

    with monkeypatch.context() as patch:
        patch.setattr(download, "progress", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_or_download(small, tmp_path, urls=[server.url])
    kept = (tmp_path / PART).stat().st_size
    find_or_download(small, tmp_path, urls=[server.url])
    assert_fetched(tmp_path, packed)
    assert server.ranges == [None, f"bytes={kept}-"]


PROCESS = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from cifar_lightning.data.download import find_or_download
    from cifar_lightning.data.official import CIFAR10, Checksum
    small = replace(CIFAR10, archive_checksum=Checksum(int(sys.argv[3]), sys.argv[4]))
    print(find_or_download(small, Path(sys.argv[1]), urls=[sys.argv[2]]))
"""


def test_processes_share_one_download(tmp_path, small, official, packed, serve):
    server = serve(official, bytes_per_second=800_000)
    root, expected = tmp_path / "data", small.archive_checksum
    arguments = [str(root), server.url, str(expected.size), expected.md5]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate(timeout=300)[0].strip() for process in processes] == [str(root / FOLDER)] * 8
    assert_fetched(root, packed)
    assert server.ranges == [None]


RUN = """
    import sys
    from dataclasses import replace
    from cifar_lightning.data.official import CIFAR10, Checksum
    from cifar_lightning.data.sets import SETS
    small = replace(CIFAR10, archive_checksum=Checksum(int(sys.argv[2]), sys.argv[3]), urls=(sys.argv[1],))
    SETS["cifar10"] = replace(SETS["cifar10"], official=small)
    sys.argv[1:] = sys.argv[4:]
    from cifar_lightning.__main__ import main
    main()
"""


@pytest.mark.slow
def test_runs_that_start_at_once_on_an_empty_folder_share_one_download_and_all_end_well(
    tmp_path, small, official, packed, serve
):
    server, expected = serve(official, bytes_per_second=400_000), small.archive_checksum
    sums = [server.url, str(expected.size), expected.md5]
    small = ["model=cnn2", "data.verify=false", "data.val_size=60", "data.batch_size=20", "trainer.max_epochs=1"]
    command = [sys.executable, "-c", textwrap.dedent(RUN), *sums, *small, "logger=none"]
    how = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **how) for _ in range(8)]
    assert [(process.communicate(timeout=300)[1], process.returncode) for process in processes] == [("", 0)] * 8
    assert server.ranges == [None]
    assert_fetched(tmp_path / "data", packed)
    assert len(list((tmp_path / "logs" / "train" / "runs").glob("*/metrics.json"))) == 8


def test_progress_is_a_line_for_every_tenth_where_there_is_no_terminal(tmp_path, small, official, serve, caplog):
    with caplog.at_level(logging.INFO):
        find_or_download(small, tmp_path, urls=[serve(official).url])
    shares = [int(share) for share in re.findall(r"(\d+) % of", caplog.text)]
    assert 2 <= len(shares) <= 10
    assert shares == sorted(set(shares))
    assert shares[-1] == 100


def test_full_disk_is_known_before_the_download(tmp_path, small, official, serve, monkeypatch):
    server = serve(official)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: download.shutil._ntuple_diskusage(9, 9, 1_000_000))
    with pytest.raises(UserError, match=r"CIFAR-10 needs \d+ MB in .*, where 1 MB are free"):
        find_or_download(small, tmp_path, urls=[server.url])
    assert server.ranges == []


def test_disk_that_takes_no_more_is_a_clear_error(tmp_path, small, official, serve):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"can't be written to .*: File too large.*data\.root=\.\.\."):
            find_or_download(small, tmp_path, urls=[serve(official).url])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / FOLDER).exists()


def test_folder_that_cannot_be_written_is_a_clear_error(tmp_path, small, official, serve):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't be written to .*: Not a directory.*data\.root=\.\.\."):
        find_or_download(small, tmp_path / "file" / "data", urls=[serve(official).url])


def test_file_in_the_place_of_the_folder_is_a_clear_error(tmp_path, small):
    (tmp_path / FOLDER).touch()
    with pytest.raises(UserError, match=f"{FOLDER} is not a folder"):
        find_or_download(small, tmp_path)
