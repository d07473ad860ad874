"""The README's commands are run as they stand there, with small data and few steps."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from cifar_lightning.commands import COMMANDS as NAMES
from cifar_lightning.config.checks import compose_checked

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line]
RUN = "python -m cifar_lightning "
TOOLS = [line for line in COMMANDS if line.startswith(RUN) and line.split()[3] in NAMES]
TRAIN = [
    line
    for line in COMMANDS
    if f"{line} ".startswith(RUN) and line not in TOOLS and "ckpt_path" not in line and "ddp" not in line
]
SHORT_SEARCH = ["n_trials=1", "data=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none"]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_test_batches=1", "logger=none"]


def arguments(line: str) -> list[str]:
    return shlex.split(line)[3:]


# The baseline, a recipe and a network of one's own run in the fast tests; of the others the config is composed there.
FAST = re.compile(r"cifar_lightning$|experiment=classic/lenet$|my_nets")
TRAINING = [line if FAST.search(line) else pytest.param(line, marks=pytest.mark.slow) for line in TRAIN]


def test_a_training_commands_config_is_valid():
    for line in TRAIN:
        if arguments(line)[:1] and arguments(line)[0].isidentifier():
            continue  # a command
        compose_checked([word for word in arguments(line) if word not in ("-m", "--help") and "," not in word])


@pytest.mark.parametrize("line", TRAINING)
def test_a_training_command_runs(command, cifar_folder, monkeypatch, line):
    given = [word.replace("accelerator=gpu", "accelerator=cpu") for word in arguments(line)]
    if given != ["--help"]:
        if "data=digits" not in given and "experiment=demo" not in given:
            has_no_validation = "data.val_size=0" in given or any("experiment=classic" in word for word in given)
            given += [
                f"data.root={cifar_folder}",
                "data.verify=false",
                f"data.val_size={0 if has_no_validation else 60}",
            ]
        given += [*SHORT, *(["data.batch_size=32"] if not any("data.batch_size" in word for word in given) else [])]
    if any("my_nets" in word for word in given):
        Path("my_nets.py").write_text(NET)
        monkeypatch.syspath_prepend(str(command.folder))
    outcome = command(*given)
    assert outcome.code == 0, outcome.err


def test_resuming_testing_and_summarising_run(command, capsys, cifar_folder):
    small = ["data=digits", "model=cnn2", "trainer.limit_train_batches=3", "logger=none"]
    assert command(*small, "trainer.max_epochs=1").code == 0
    (folder,) = command.runs()
    (test_line,) = (line for line in COMMANDS if "train=false" in line)
    outcome = command(*arguments(test_line.replace("NAME", folder.name)))
    assert outcome.code == 0, outcome.err

    (folder / "metrics.json").unlink()  # as if it had been interrupted
    (last_line,) = (line for line in COMMANDS if "ckpt_path=last" in line)
    outcome = command(*arguments(last_line), "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    assert (folder / "metrics.json").exists()

    sweep = ["activation=relu,tanh", "trainer.max_epochs=1", f"hydra.sweep.dir=logs/train/multiruns/{folder.name}"]
    assert command("-m", *small, *sweep).code == 0
    Path("photos").mkdir()
    Image.new("RGB", (50, 40), "red").save("photos/red.png")
    printed = ""
    for line in TOOLS:
        name, *given = arguments(line.replace("NAME", folder.name))
        if name == "search":
            given = [word for word in given if not word.startswith("n_trials=")] + SHORT_SEARCH
        if name == "data":
            audit = "audit" in given
            given = [*["audit"] * audit, f"data.root={cifar_folder}", "data.verify=false"]
            given += [] if audit else ["data.val_size=60"]
        if name == "lr_find":
            given = ["data=digits", "model=cnn2", "optimizer=adam"]
        given += ["card_images=10"] * ("card=true" in given)
        outcome = command(name, *given)
        assert outcome.code == 0, (line, outcome.err)
        printed += outcome.out
    assert "cnn2" in printed  # the summary's row


API, NET = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_lines_give_what_is_said_beside_them(command, capsys):
    first, _, rest = API.partition("runs = sweep")
    exec(first, names := {})
    accuracy, classes = capsys.readouterr().out.splitlines()[-2:]
    assert float(accuracy) > 0.95
    assert classes == "['5', '2', '8']"
    short = '"trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none"'
    exec("runs = sweep" + rest.replace('"trainer.max_epochs=5"', short), names)
    assert "activation=tanh" in capsys.readouterr().out


def test_the_network_of_ones_own_learns(command, monkeypatch):
    (line,) = (line for line in COMMANDS if "my_nets" in line)
    Path("my_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(str(command.folder))
    outcome = command(*arguments(line), "hydra.run.dir=run", "logger=none")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("run/metrics.json").read_text())["test/acc"] > 0.9


@pytest.mark.slow
def test_its_sweep_compares_fairly(command, capsys):
    exec(API, {})
    rows = re.findall(r"activation=(\w+) \|[^|]*\| +([\d.]+)", capsys.readouterr().out)
    assert {name for name, _ in rows} == {"relu", "tanh"}
    assert all(float(accuracy) > 95 for _, accuracy in rows)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_a_make_target_is_known(line):
    subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_every_command_of_the_readme_is_one_of_these():
    others = [line for line in COMMANDS if line.startswith(("make ", RUN)) and line not in (*TRAIN, *TOOLS)]
    assert sorted([*TRAIN, *TOOLS, *others]) == sorted(COMMANDS)
    # Several processes are tested in test_ddp.py.
    assert all(line.startswith("make ") or "ckpt_path" in line or "trainer=ddp" in line for line in others)


def test_it_stays_short_and_its_files_exist():
    assert len(README.splitlines()) < 250
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
