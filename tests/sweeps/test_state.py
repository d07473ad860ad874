import json
import subprocess
import sys

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
    with state.claim(running) as free:
        assert free
        jobs = state.unfinished(tmp_path)
    assert [(job.folder.name, job.failed) for job in jobs] == [
        ("b_failed", True), ("c_cut_off", False), ("d_unreadable", False), ("e_running", False),
    ]  # fmt: skip
    assert [job.reason.split()[0] for job in jobs] == ["no", "was", "was", "is"]
    assert state.unfinished(tmp_path)[-1].reason.startswith("was cut off")


def test_one_process_has_a_job_until_it_ends_however_it_ends(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from cifar_lightning.sweeps import state\n"
        f"with state.claim(Path({str(tmp_path)!r})) as free: print(free, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with state.claim(tmp_path) as free:
            assert not free
        other.kill()
        other.wait()
    with state.claim(tmp_path) as free:
        assert free
