import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.sampling import sampled

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]


@pytest.mark.parametrize(
    "arguments",
    sampled(
        [
            ["modle=resnet"],
            ["model=resnett"],
            ["optimizer.lrr=1"],
            ["data.batch_size=0"],
            ["data.val_size=60000"],
            ["trainer.max_epochs=abc"],
            ["activation=relu,tanh"],
            ["-m", "activation=relu,tanhh"],
            ["-m", "experiment=glob(clasic/*)"],
            ["-m", "seed=1,2", "data.batch_size=64,0"],
            ["train=false"],
            ["ckpt_path=nowhere.ckpt"],
            ["ckpt_path=last"],
            ["data.root=/nowhere/at/all"],
            [*QUICK, "+trainer.no_such_key=1"],
            [*QUICK, "optimizer=torch", "optimizer.name=Adamm"],
            [*QUICK, "model.dropout=2"],
            [*QUICK, "data.batch_size=1400"],
            [*QUICK, "hydra.run.dir=/dev/null/run"],
            [*QUICK, "paths.log_dir=/dev/null"],
        ],
        every=3,
    ),
)
def test_bad_input_ends_in_one_line_without_a_traceback(command, arguments):
    outcome = command(*arguments)
    assert outcome.code == 1
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in outcome.err + outcome.out


@pytest.mark.parametrize("arguments", [["modle=resnet"], ["data.batch_size=0"], ["ckpt_path=nowhere.ckpt"]])
def test_a_mistake_leaves_nothing_behind(command, arguments):
    command(*arguments)
    assert list(command.folder.iterdir()) == []


@pytest.mark.parametrize(("mode", "folder"), [([], "runs"), (["-m"], "multiruns")])
def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(command, mode, folder):
    (command.folder / "file").touch()
    outcome = command(*mode, "data=digits", "paths.log_dir=file/logs")
    assert outcome.code == 1
    assert outcome.err == f"error: file/logs/train/{folder}: Not a directory\n"


def heavy_imports(folder: Path, *arguments: str) -> str:
    program = (
        "import sys, cifar_lightning.__main__ as m\n"
        f"sys.argv = ['cifar_lightning', *{arguments!r}]\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'lightning' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_who_has_no_data_does_not_wait_for_torch(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-10-batches-py").touch()  # no folder, so that nothing is asked for over the network
    assert heavy_imports(tmp_path) == "False False False"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_clear_line(command):
    outcome = command(*QUICK, "trainer.accelerator=gpu")
    assert outcome.code == 1
    assert outcome.err == "error: trainer.accelerator=gpu: PyTorch finds no GPU; use trainer.accelerator=cpu or auto\n"


def test_the_traceback_of_a_failed_run_is_in_its_log(command, monkeypatch):
    Path("broken.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, **keys): super().__init__(1, 1)\n"
        "    def forward(self, images): raise RuntimeError('at the first step')\n"
    )
    monkeypatch.syspath_prepend(command.folder)
    outcome = command(*QUICK, "model._target_=broken.Net", "callbacks.model_summary=null", "logger=none")
    assert outcome.code == 1
    (folder,) = command.runs()
    log = (folder / "cifar_lightning.log").read_text()
    assert "Traceback" in log
    assert "RuntimeError: at the first step" in log
    assert outcome.err == f"error: RuntimeError: at the first step (traceback: {folder / 'cifar_lightning.log'})\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "data_batch_3"),
        (lambda f: (f / "data_batch_3").write_bytes((f / "data_batch_3").read_bytes()[:1000]), "data_batch_3"),
        (lambda f: (f / "test_batch").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR."), "test_batch"),
        (lambda f: (f / "batches.meta").write_text("not a pickle"), "batches.meta"),
    ],
)
def test_a_damaged_data_folder_is_named_by_its_file(command, cifar_folder, damage, message):
    folder = command.folder / "mine" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for file in (cifar_folder / folder.name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    outcome = command("data.root=mine", "data.verify=false", "data.val_size=0", "data.batch_size=32")
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (command.folder / "hacked").exists()


def test_a_checkpoint_that_is_none_is_refused(command):
    Path("photo.ckpt").write_bytes(b"\xff\xd8 not a checkpoint")
    outcome = command("ckpt_path=photo.ckpt", "data=digits")
    assert outcome.code == 1
    assert "photo.ckpt can't be read as a checkpoint" in outcome.err


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["modle=resnet"]])
def test_help_configs_and_mistakes_do_not_wait_for_torch(tmp_path, arguments):
    assert heavy_imports(tmp_path, *arguments) == "False False False"


@pytest.mark.slow
def test_the_module_the_console_script_and_another_folder_make_the_same_run(tmp_path):
    program = Path(sys.executable).parent / "cifar-lightning"
    for start in ([sys.executable, "-m", "cifar_lightning"], [str(program)]):
        arguments = [*QUICK, "logger=none", "hydra.run.dir=here", "callbacks=none"]
        subprocess.run([*start, *arguments], cwd=tmp_path, check=True, capture_output=True, env={**os.environ})
        metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
        (tmp_path / "here" / "metrics.json").rename(tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json")
        assert set(metrics["overrides"]) == {word for word in arguments if not word.startswith(("hydra.", "logger"))}
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert first["test/loss"] == second["test/loss"]


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_job_that_fails_and_says_so(command):
    outcome = command("-m", *QUICK, "logger=none", "callbacks=none", "model.dropout=2,0.1")
    assert outcome.code == 1
    assert "dropout" in outcome.err
    (sweep,) = (command.folder / "logs" / "train" / "multiruns").glob("*")
    finished = [path.parent.name for path in sweep.glob("*/metrics.json")]
    assert finished == ["model.dropout=0.1"]
