"""Every command explains itself, quickly and in few lines; the console command completes its words."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cifar_lightning

ROOT = Path(cifar_lightning.__file__).parent


def entry_points() -> list[str]:
    """The modules of the package that `python -m` runs: those with a `main` and an `if __name__ == …`."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defines_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if defines_main and any(
            isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body
        ):
            found.append(".".join(["cifar_lightning", *path.relative_to(ROOT).with_suffix("").parts]))
    return found


COMMANDS = {name.removesuffix(".__main__"): importlib.import_module(name).main for name in entry_points()}


def test_the_commands_are_found():
    known = {"", ".evaluate", ".predict", ".export", ".summarize", ".search", ".models"}
    assert {f"cifar_lightning{name}" for name in known} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short_has_examples_and_exits_with_0(name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    try:
        code = COMMANDS[name]()
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code or 0, err) == (0, "")
    lines = out.splitlines()
    assert 5 <= len(lines) <= 60
    long = [line for line in lines if len(line) > 120 and not re.match(r"[\w/]+: ", line)]  # choices of a group
    assert not long
    assert f"python -m {name} " in out.replace("\n", " \n")
    assert sum(line.lstrip().startswith(f"python -m {name}") for line in lines) >= 2
    assert list(tmp_path.iterdir()) == []


OPTIONS = ["cifar_lightning.commands.summarize", "cifar_lightning.commands.report", "cifar_lightning.models"]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mistyped_option_is_answered_in_one_line(name, capsys):
    with pytest.raises(SystemExit) as end:
        COMMANDS[name](["folder", "--optoin"])
    assert end.value.code == 1
    assert capsys.readouterr() == (
        "", f"error: unrecognized arguments: --optoin (see python -m {name} --help)\n"
    )  # fmt: skip


@pytest.mark.parametrize("words", [[], ["install"], ["install=tcsh"], ["instal=bash"], ["install=bash", "query=bash"]])
def test_a_completion_that_there_is_not_is_answered_in_one_line(command, words):
    outcome = command("--shell-completion", *words)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"error: --shell-completion {' '.join(words)}: write install=SHELL")
    assert outcome.err.count("\n") == 1


def test_help_of_a_command_about_a_search_or_models_does_not_wait_for_torch():
    program = (
        "import sys\nfrom cifar_lightning import search\nfrom cifar_lightning.models import __main__ as models\n"
        "search.main(['--help'])\n"
        "try: models.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'optuna', 'matplotlib', 'numpy'} & set(sys.modules)))"
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
        "model. model=",
        "model=resnet model=resnet18",
        "experiment=classic/lenet experiment=classic/lenet3 experiment=classic/lenet3_augmented",
        "model.batch_norm=",
    ]
