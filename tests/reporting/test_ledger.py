"""The test ledger: each look at test labels is a line, and a line that was changed, removed or lost is noticed."""

import json
import multiprocessing
from pathlib import Path

import pytest

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.ledger import NAME, check_writable, ledger_of, looks, note, read

LOOK = {"run": "a", "setting": "model=cnn2", "data": "digits", "test_checksum": "c0ffee"}


@pytest.fixture
def five(tmp_path):
    """A ledger with five looks by two settings, and their lines."""
    file = tmp_path / NAME
    settings = ["model=cnn2", "model=cnn2", "model=lenet", "model=cnn2", "model=lenet"]
    lines = [note(file, LOOK | {"setting": setting}) for setting in settings]
    return file, lines


def result(line):
    return {"data": "digits", "test/acc": 0.5, "test_checksum": "c0ffee", "test_look": line["hash"]}


def said(file, *lines):
    (sentence,) = looks([(file.parent / "run" / "metrics.json", result(line)) for line in lines])
    return sentence


def edited(file, change):
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in change(lines)))


def with_setting(line):
    return json.dumps(json.loads(line) | {"setting": "model=cnn2"})


def test_looks_and_settings_of_a_test_set_are_counted(five, tmp_path):
    file, lines = five
    assert said(file, *lines) == said(file, lines[0]) == "Test set of digits: looked at 5 times by 2 settings."
    other = note(file, LOOK | {"data": "cifar10", "test_checksum": "beef"})
    sentences = looks([(tmp_path / "x", result(lines[0])), (tmp_path / "y", result(other) | {
        "data": "cifar10", "test_checksum": "beef"})])  # fmt: skip
    assert sentences[1] == "Test set of cifar10: looked at once by 1 setting."
    assert sentences[0] == said(file, lines[0])
    assert looks([(tmp_path / "x", {"val/acc": 0.5, "data": "digits"})]) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: [*lines[:2], with_setting(lines[2]), *lines[3:]], "line 3 was edited"),
        (lambda lines: [*lines[:4], with_setting(lines[4])], "line 5 was edited"),
        (lambda lines: [*lines[:1], *lines[2:]], "lines before line 2 were removed or changed"),
        (lambda lines: [*lines[1:]], "lines before line 1 were removed or changed"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "lines before line 1 were removed or changed"),
        (lambda lines: [*lines[:2], lines[2][:20], *lines[3:]], "line 3 can't be read"),
        (lambda lines: [*lines[:2], "[1]", *lines[3:]], "line 3 can't be read"),
    ],
)
def test_a_changed_line_is_noticed_and_stays_noticed(five, change, fault):
    file, lines = five
    edited(file, change)
    assert read(file)[1] == fault
    assert fault in said(file, lines[0])
    assert said(file, lines[0]).count("Don't rely on this") == 1
    note(file, LOOK)
    assert read(file)[1] == fault


def test_lines_cut_off_at_the_end_are_noticed_by_the_results_that_they_belong_to(five):
    file, lines = five
    edited(file, lambda lines: lines[:3])
    assert read(file)[1] == ""
    assert "looked at 3 times by 2 settings. Don't rely on this" in said(file, *lines)
    assert "(2 of these results are not in it)" in said(file, *lines)
    # also if the last line left is rewritten with a hash of its own
    assert "Don't rely" not in said(file, *lines[:3])


def test_a_lost_ledger_is_noticed_also_when_a_new_one_was_begun(five, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, lines = five
    file.unlink()
    assert "is unknown, as test_ledger.jsonl is missing" in said(file, *lines)
    new = note(file, LOOK)
    assert "(5 of these results are not in it)" in said(file, *lines, new)


def test_results_older_than_the_ledger_say_so(tmp_path):
    old = {"data": "digits", "test/acc": 0.5}
    assert looks([(tmp_path / "x", old)]) == [
        "Test set of digits: these results are older than the ledger of looks at it."
    ]


def test_a_line_torn_by_a_crash_does_not_swallow_the_next(five):
    file, _lines = five
    with file.open("a") as opened:
        opened.write('{"number": 6, "ti')
    note(file, LOOK)
    found, fault = read(file)
    assert fault == "line 6 can't be read"
    assert found[-1]["number"] == 7


def _looks(file, count):
    for _ in range(count):
        note(file, LOOK)


def test_parallel_jobs_wait_for_each_other(tmp_path):
    file = tmp_path / "logs" / NAME
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_looks, args=(file, 25)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    lines, fault = read(file)
    assert (len(lines), fault, [job.exitcode for job in jobs]) == (50, "", [0, 0])


def test_the_nearest_ledger_above_is_a_runs_own_else_that_of_logs(five, tmp_path):
    file, _ = five
    assert ledger_of(tmp_path / "train" / "runs" / "x" / "metrics.json") == file
    assert ledger_of(Path("/nowhere/x")) == Path("logs") / NAME
    assert ledger_of(tmp_path / "x", "there") == Path("there") / NAME


def test_a_folder_that_can_not_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / NAME).mkdir()
    for file, reason in (
        (tmp_path / "file" / NAME, "a part of its path is a file"),
        (tmp_path / NAME, "it is a folder"),
    ):
        with pytest.raises(UserError, match=f"can't write .*{reason}.*paths.log_dir=…"):
            check_writable(file)
        with pytest.raises(UserError, match=r"can't write .*paths\.log_dir=…"):
            note(file, LOOK)
