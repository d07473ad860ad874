"""A run trained again from its own record is the same bit for bit; whatever was changed since is found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.reporting.files import read_csv, write_csv

QUICK = [
    "data=digits", "model=cnn2", "model.channels=[4,4]", "augmentation=none", "logger=none", "trainer.max_epochs=2",
    "callbacks.model_summary=null", "data.batch_size=512", "trainer.precision=32-true", "trainer.log_every_n_steps=1",
]  # fmt: skip
RUN = Path("logs/train/runs/a")
SAME = "✓"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The logs of a run, made once for all tests."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["cifar_lightning", *QUICK, f"hydra.run.dir={RUN}"])
        patch.setattr("cifar_lightning.runs.record.draw", lambda *_: {})
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return folder / "logs"


@pytest.fixture
def run(command, made):
    """A copy of that run in the current folder."""
    shutil.copytree(made, "logs")
    return RUN


def change_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def looks():
    return Path("logs/test_ledger.jsonl").read_text().count("\n")


def test_the_whole_run_is_the_same_bit_for_bit(command, run):
    temporary = set(Path("/tmp").glob("verify-*"))
    outcome = command("verify", str(run))
    assert outcome.code == 0, outcome.out + outcome.err
    assert "as recorded, the same bit for bit" in outcome.out
    assert outcome.out.count(SAME) == 12
    assert "✗" not in outcome.out
    assert looks() == 2  # it tests
    settings = {json.loads(line)["setting"] for line in Path("logs/test_ledger.jsonl").read_text().splitlines()}
    assert len(settings) == 1
    assert set(Path("/tmp").glob("verify-*")) <= temporary


KINDS = [
    "trainer.accumulate_grad_batches=2 trainer.log_every_n_steps=3 trainer.max_steps=5 data.batch_size=64",
    "ema_decay=0.9 augmentation=mixup data.label_noise=0.2 callbacks=early_stopping",
    "augmentation=trivial_augment data.num_workers=2 data.val_size=0",
    "data.folds=5 data.fold=2 optimizer=muon test_tta=flip model=resnet model.widths=[4,8] model.blocks=1",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_can_be_repeated(command, kind):
    typed = [w for w in QUICK if not (w.startswith("model") and "model=" in kind)]
    outcome = command(*typed, *kind.split(), f"hydra.run.dir={RUN}")
    assert outcome.code == 0, outcome.err
    outcome = command("verify", str(RUN))
    assert outcome.code == 0, outcome.out
    assert "as recorded, the same bit for bit" in outcome.out
    assert "not compared" not in outcome.out


def test_the_first_steps_are_compared_without_a_look_at_the_test_set(command, run):
    outcome = command("verify", str(run), "steps=4")  # three make an epoch
    assert outcome.code == 0, outcome.out + outcome.err
    assert "as recorded in its first 4 steps, the same bit for bit" in outcome.out
    assert "the same (4 steps)" in outcome.out
    assert "the same (1 epochs)" in outcome.out
    assert looks() == 1


def changed_weights(run):
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        next(iter(content["state_dict"].values()))[0] += 0.125
        torch.save(content, run / "checkpoints" / name)


def changed_rows(name, **fields):
    def change(run):
        rows = read_csv(run / name)
        write_csv(run / name, [*rows[:1], rows[1] | fields, *rows[2:]])

    return change


def cut_losses(run):
    write_csv(run / "losses.csv", read_csv(run / "losses.csv")[:-3])


TAMPERED = {
    "seed": (
        lambda run: replace(run / "config.yaml", "seed: 0", "seed: 1"),
        "seed: 0 in metrics.json, 1 in config.yaml",
    ),
    "learning rate": (
        lambda run: replace(run / "config.yaml", "lr: 0.1", "lr: 0.2"),
        "optimizer.lr: default in metrics.json, 0.2 in config.yaml",
    ),
    "accuracy": (lambda run: change_json(run / "metrics.json", **{"test/acc": 0.99}), "0.99 recorded"),
    "validation": (lambda run: change_json(run / "metrics.json", **{"val/acc": 0.99}), "val/acc: 0.99 recorded"),
    "name": (
        lambda run: change_json(run / "metrics.json", overrides=["model=resnet"]),
        "model: resnet in metrics.json",
    ),
    "losses": (changed_rows("losses.csv", loss=0.5), "from step 2 on: loss 0.5 recorded"),
    "fewer losses": (cut_losses, "3 rows recorded, 6 now"),
    "history": (changed_rows("history.csv", **{"val/acc": 0.9}), "from epoch 2 on: val/acc 0.9 recorded"),
    "predictions": (changed_rows("predictions.csv", prediction="11"), "another class for 1 of 360 images"),
    "weights": (changed_weights, "parted by up to 0.1"),
}
SHORT = ("seed", "losses", "accuracy")  # found in the first steps, too
FAST = (*SHORT, "weights")


@pytest.mark.parametrize("what", [w if w in FAST else pytest.param(w, marks=pytest.mark.slow) for w in TAMPERED])
def test_what_was_changed_is_found(command, run, what):
    change, words = TAMPERED[what]
    change(run)
    outcome = command("verify", str(run))
    assert outcome.code == 1, outcome.out
    printed = " ".join(outcome.out.split())
    assert words in printed
    assert "nothing in hardware, threads, precision or versions explains it" in printed
    if what in SHORT:
        assert command("verify", str(run), "steps=4").code == 1


def test_other_data_are_found(command, tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), np.arange(40) % 2

    def write():
        parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
        np.savez("own.npz", **parts)

    write()
    typed = [w for w in QUICK if not w.startswith("data")]
    outcome = command(*typed, "data=npz", "data.root=own.npz", "data.batch_size=8", f"hydra.run.dir={RUN}")
    assert outcome.code == 0, outcome.err
    images[0, 0, 0, 0] += 1
    write()
    outcome = command("verify", str(RUN), "steps=2")
    assert outcome.code == 1
    assert "✗ data checksum" in outcome.out


@pytest.mark.slow
def test_another_environment_is_named_and_a_tolerance_lets_it_pass(command, run):
    metrics = json.loads((run / "metrics.json").read_text())
    other = metrics["versions"] | {"torch": "2.11.0"}
    change_json(run / "metrics.json", versions=other, hardware="1 thread of Some CPU", weights="0" * 16)
    rows = read_csv(run / "losses.csv")
    write_csv(run / "losses.csv", [row | {"loss": row["loss"] * 1.0001} for row in rows])
    outcome = command("verify", str(run))
    assert outcome.code == 1
    assert "this may explain it: hardware: Some CPU then" in outcome.out
    assert "torch: 2.11.0 then" in outcome.out
    assert "(0.0001 of it)" in outcome.out
    (run / "checkpoints" / "best.ckpt").unlink()
    outcome = command("verify", str(run), "tolerance=0.01")
    assert outcome.code == 0, outcome.out
    assert "as recorded, within tolerance=0.01" in outcome.out


def test_an_older_run_without_the_new_record_is_compared_as_far_as_it_goes(command, run):
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("initial_weights", "weights", "starts", "test_look", "test_checksum"):
        del metrics[key]
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "losses.csv").unlink()
    shutil.rmtree(run / "checkpoints")
    outcome = command("verify", str(run))
    assert outcome.code == 0, outcome.out
    assert "not recorded: the run is older than this record" in " ".join(outcome.out.split())
    assert "(not compared: initial weights, loss of each logged step, weights, tested" in outcome.out
    assert "✓ history" in outcome.out
    assert "✓ predictions" in outcome.out


@pytest.mark.slow
def test_a_resumed_run_is_compared_up_to_where_its_length_changed(command, run):
    assert command(f"ckpt_path={run}").code == 0  # nothing more to do, and the same length
    assert command(f"ckpt_path={run}", "trainer.max_epochs=3").code == 0
    assert json.loads((run / "metrics.json").read_text())["starts"][-1] == [6, 3, -1]
    outcome = command("verify", str(run))
    assert outcome.code == 0, outcome.out + outcome.err
    assert "the same (6 steps)" in outcome.out
    assert "the same (2 epochs)" in outcome.out
    assert "repeated up to step 6 only: it was resumed with another length" in outcome.out


def test_a_table_holds_by_its_figures_and_a_run_of_each_row(command, run):
    assert command(*QUICK, "activation=tanh", "hydra.run.dir=logs/b").code == 0
    assert command("summarize", "logs", "out=tables/RESULTS.md").code == 0
    outcome = command("verify", "tables/RESULTS.md", "steps=2")
    assert outcome.code == 0, outcome.out + outcome.err
    assert "every figure is that of its runs" in outcome.out
    assert outcome.out.rstrip().endswith("2 of 2 rows hold")
    table = Path("tables/RESULTS.md")
    original = table.read_text()
    accuracy = json.loads(Path("logs/b/metrics.json").read_text())["test/acc"]
    replace(table, f"{100 * accuracy:.2f} (1)", "99.99 (1)")
    outcome = command("verify", "tables/RESULTS.md", "steps=2")
    assert outcome.code == 1
    assert f"test accuracy: 99.99 (1) in the table, {100 * accuracy:.2f} (1) from its runs" in outcome.out
    table.write_text(original)
    change_json(Path("logs/b/metrics.json"), initial_weights="0" * 16)
    outcome = command("verify", "tables/RESULTS.md", "steps=2")
    assert outcome.code == 1
    assert "1 of 2 rows hold; not activation=tanh" in outcome.out
    shutil.rmtree("logs/b")
    outcome = command("verify", "tables/RESULTS.md")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "there is no longer a result in tables/../logs/b" in outcome.err


@pytest.mark.slow
def test_a_table_whose_runs_are_gone_is_checked_by_what_its_rows_name(command, run):
    assert command(*QUICK, "activation=tanh", "hydra.run.dir=logs/b").code == 0
    assert command("summarize", "logs", "out=RESULTS.md").code == 0
    shutil.rmtree("logs")
    outcome = command("verify", "RESULTS.md")
    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.out.count("✓ parameters") == outcome.out.count("✓ data checksum") == 2
    assert "2 of 2 rows hold" in outcome.out
    assert not Path("logs").exists()  # nothing was tested
    table = Path("RESULTS.md")
    replace(table, "data digits, checksum ", "data digits, checksum 0123456789abcdef and ")
    original = table.read_text()
    for old, new, message in (
        ("model.channels=[4,4]", "model.channels=[4,8]", "✗ parameters"),
        (
            "activation=tanh",
            "activation=tahn",
            "row activation=tahn: it names no command that there is: activation=tahn",
        ),
        ("activation=tanh", "model._target_=os.getpid", "verify does not run model._target_=os.getpid from a file"),
    ):
        table.write_text(original.replace(old, new))
        outcome = command("verify", "RESULTS.md")
        assert outcome.code == 1
        assert message in outcome.out + outcome.err
        assert outcome.err.count("\n") <= 1


def test_nothing_foreign_is_built_from_the_config_of_a_run(command, run):
    for old, new in (
        ("cifar_lightning.models.convnet.ConvNet", "os.getpid"),
        ("cifar_lightning.callbacks.finite_loss.FiniteLoss", "os.getpid"),
    ):
        file = run / "config.yaml"
        text = file.read_text()
        replace(file, old, new)
        outcome = command("verify", str(run))
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert outcome.err.startswith(f"error: {file}: ")
        assert "os.getpid" in outcome.err
        assert "trust=…" in outcome.err
        file.write_text(text)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "RUN is missing"),
        ("nowhere", "nowhere: no such file or directory; give a run's folder, or a table"),
        ("logs", "logs holds no finished run: there is no metrics.json in it"),
        ("{run} steps=0", "steps=0: must be a number of at least 1, or all"),
        ("{run} steps=few", "steps=few: must be a number of at least 1, or all"),
        ("{run} tolerance=2", "tolerance=2: must be a number from 0 to below 1"),
        ("{run} step=5", "there is no key step; did you mean steps?"),
        ("notes.md", "notes.md holds no table of runs"),
    ],
)
def test_a_mistake_is_one_line(command, run, typed, message):
    Path("notes.md").write_text("# Notes\n")
    before = set(Path().rglob("*"))
    outcome = command("verify", *typed.format(run=run).split())
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert message in outcome.err
    assert set(Path().rglob("*")) == before


def test_runs_that_can_not_be_repeated_say_why(command, run):
    change_json(run / "metrics.json", processes=2)
    assert "was trained by 2 processes, and verify repeats one" in command("verify", str(run)).err
    change_json(run / "metrics.json", processes=1)
    replace(run / "config.yaml", "train: true", "train: false")
    assert "only tested a checkpoint: verify the run that trained it" in command("verify", str(run)).err
    (run / "config.yaml").unlink()
    outcome = command("verify", str(run))
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "config.yaml: No such file or directory; without it nothing can be repeated" in outcome.err
