"""`--help`: the commands, and every group with its choices."""

import pytest
from helpers.sampling import sampled

from cifar_lightning.commands.usage import usage
from cifar_lightning.config.compose import conf_dir

FILES = sorted(path.relative_to(conf_dir()).with_suffix("") for path in conf_dir().glob("*/**/*.yaml"))
CHOSEN = [str(path) for path in FILES if path.parts[0] not in ("hydra", "hparams_search")]


def groups(text: str) -> dict[str, list[str]]:
    """The choices of each group, as the text lists them."""
    lines = text.split("their choices:\n")[1].split("\n\n")[0].replace("\n  ", " ").splitlines()
    return {group: names.split(", ") for group, names in (line.split(": ") for line in lines)}


@pytest.mark.parametrize("chosen", sampled(CHOSEN, every=6))
def test_every_file_of_a_group_is_a_choice(chosen):
    group, name = chosen.split("/", 1)
    assert name in groups(usage())[group]


def test_help_is_short_and_ends_well_whatever_else_is_typed(command):
    outcome = command("modle=resnet", "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "python -m cifar_lightning experiment=classic/lenet" in outcome.out
    assert len(outcome.out.splitlines()) < 50
    assert max(map(len, outcome.out.splitlines())) <= 110


def test_a_folder_of_ones_own_adds_its_choices(tmp_path):
    for name in ("model/mine", "colour/red"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir()
        path.touch()
    ours, both = groups(usage()), groups(usage(str(tmp_path)))
    assert set(both["model"]) - set(ours["model"]) == {"mine"}
    assert both["colour"] == ["red"]
    assert both["optimizer"] == ours["optimizer"]


def test_a_folder_that_is_not_there_leaves_the_help_as_it_is():
    assert usage("nowhere") == usage()
