"""Every command explains itself, quickly and in few lines; the console command completes its words."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lightning import commands
from cifar_lightning.commands import COMMANDS

MODULES = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}


def test_every_command_has_a_file_and_a_line_in_the_help(command):
    assert set(COMMANDS) <= MODULES
    for name in COMMANDS:
        assert f"  {name} " in command("--help").out


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_short_has_examples_and_exits_with_0(name, command):
    outcome = command(*name.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert 5 <= len(lines) <= 60
    long = [line for line in lines if len(line) > 115 and not re.match(r"[\w/]+: ", line)]  # choices of a group
    assert not long
    typed = f"python -m cifar_lightning {name}".strip()
    assert sum(line.lstrip().startswith(typed) for line in lines) >= 2
    assert list(command.folder.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_key_and_an_option_of_old_are_answered_in_one_line(name, command):
    key = next(iter(importlib.import_module(f"cifar_lightning.commands.{name}").COMMAND.keys))
    for typed in (f"{key[:-1]}{key[-1]}x=1", f"--{key}"):
        if name == "search" and "=" in typed:
            continue  # may be an override: checked with the config
        outcome = command(name, typed)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert f"did you mean {key}?" in outcome.err


def test_a_command_that_there_is_not_is_answered_with_the_nearest(command):
    outcome = command("evalute", "best.ckpt")
    assert (outcome.code, outcome.err) == (1, "error: there is no command evalute; did you mean evaluate?\n")
    assert command("train", "model=cnn2").err == "error: there is no command train; training needs no command\n"


@pytest.mark.parametrize("words", [[], ["install"], ["install=tcsh"], ["instal=bash"], ["install=bash", "query=bash"]])
def test_a_completion_that_there_is_not_is_answered_in_one_line(command, words):
    outcome = command("--shell-completion", *words)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"error: --shell-completion {' '.join(words)}: write install=SHELL")
    assert outcome.err.count("\n") == 1


def test_no_help_waits_for_torch():
    program = (
        "import sys\nfrom cifar_lightning.__main__ import main\n"
        f"for name in {['', *COMMANDS]}:\n"
        "    sys.argv = ['cifar_lightning', *name.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'lightning', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_bash_completes_groups_choices_recipes_and_keys_of_the_console_command(tmp_path):
    program = Path(sys.executable).parent / "cifar-lightning"
    script = tmp_path / "complete.sh"
    script.write_text(
        f'PATH={program.parent}:$PATH\neval "$(cifar-lightning -sc install=bash)"\n'
        "complete -p cifar-lightning\n"
        'for line in "cifar-lightning mod" "cifar-lightning -m model=resn" "cifar-lightning experiment=classic/lenet" '
        '"cifar-lightning model=cnn2 model.ba"; do\n'
        "  COMP_LINE=$line; COMP_POINT=${#line}; words=($line); COMP_CWORD=$((${#words[@]} - 1)); COMPREPLY=()\n"
        '  hydra_bash_completion; echo "${COMPREPLY[*]}"\n'
        "done\n"
    )
    done = subprocess.run(["bash", str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == [
        "model. model= module.",
        "model=resnet model=resnet18",
        "experiment=classic/lenet experiment=classic/lenet3 experiment=classic/lenet3_augmented",
        "model.batch_norm=",
    ]
