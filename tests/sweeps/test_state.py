import json
import subprocess
import sys

import pytest

from cifar_lightning.runs.folders import LOCK, claim
from cifar_lightning.sweeps import state


def make_job(sweep, name, **files):
    (sweep / name / ".hydra").mkdir(parents=True)
    (sweep / state.SWEEP).touch()
    for file, text in files.items():
        (sweep / name / f"{file}.json").write_text(text)
    return sweep / name


def test_sweeps_are_found_at_any_depth_and_single_runs_are_none(tmp_path):
    job = make_job(tmp_path / "logs" / "sweep", "a")
    (tmp_path / "logs" / "run" / ".hydra").mkdir(parents=True)
    assert [found.folder for found in state.unfinished(tmp_path)] == [job]


def test_a_job_is_finished_failed_cut_off_or_running(tmp_path):
    make_job(tmp_path, "a_finished", metrics=json.dumps({"test/acc": 0.5}))
    state.note_failure(make_job(tmp_path, "b_failed"), "no memory")
    make_job(tmp_path, "c_cut_off")
    make_job(tmp_path, "d_unreadable", metrics="{")
    running = make_job(tmp_path, "e_running")
    with claim(running) as free:
        assert free
        jobs = state.unfinished(tmp_path)
    assert [(job.folder.name, job.failed) for job in jobs] == [
        ("b_failed", True), ("c_cut_off", False), ("d_unreadable", False), ("e_running", False),
    ]  # fmt: skip
    assert [job.reason.split()[0] for job in jobs] == ["no", "was", "was", "is"]
    assert state.unfinished(tmp_path)[-1].reason.startswith("was interrupted")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "3", '{"cause": 1}', '{"reason": null}', "\xff"])
def test_a_failure_without_a_reason_that_can_be_read_is_listed_all_the_same(tmp_path, text):
    job = make_job(tmp_path, "a")
    (job / state.FAILURE).write_bytes(text.encode("latin-1"))
    assert [(found.folder, found.reason, found.failed) for found in state.unfinished(tmp_path)] == [
        (job, "failure.json gives no reason", True)
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "[1, 2]", "null", "{}", '{"accuracy": 1}', "\xff"])
def test_a_file_that_is_no_result_does_not_finish_a_job(tmp_path, text):
    job = make_job(tmp_path, "a")
    (job / "metrics.json").write_bytes(text.encode("latin-1"))
    assert state.result(job) is None
    assert [found.folder for found in state.unfinished(tmp_path)] == [job]


def test_a_job_that_can_not_be_locked_does_not_run(tmp_path):
    job = make_job(tmp_path, "a")
    (job / LOCK).mkdir()  # as good as one that may not be written
    assert [found.reason.split()[0] for found in state.unfinished(tmp_path)] == ["was"]


def test_one_process_has_a_job_until_it_ends_however_it_ends(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from cifar_lightning.runs.folders import claim\n"
        f"with claim(Path({str(tmp_path)!r})) as free: print(free, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with claim(tmp_path) as free:
            assert not free
        other.kill()
        other.wait()
    with claim(tmp_path) as free:
        assert free
