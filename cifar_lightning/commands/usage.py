"""Print `--help` and complete words in the shell; Hydra lists groups slowly and doesn't enter sub-folders."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType

from cifar_lightning.commands import COMMANDS
from cifar_lightning.config.compose import conf_dir
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError

NOT_CHOSEN_HERE = {"hydra", "hparams_search"}
SHELLS = ("bash", "fish", "zsh")
USAGE = """\
Train and test CIFAR-10 networks: python -m cifar_lightning [group=choice] [key=value] ...

  python -m cifar_lightning                                        the baseline: a small ResNet
  python -m cifar_lightning experiment=classic/lenet               a named recipe
  python -m cifar_lightning model=resnet18 trainer.accelerator=gpu optimizer.lr=0.05
  python -m cifar_lightning -m activation=relu,tanh,gelu seed=1,2,3   a sweep
  python -m cifar_lightning data=digits                            small embedded data, no download
  python -m cifar_lightning ckpt_path=last                         resume an interrupted run

Groups and their choices:
{groups}

All keys with their values: python -m cifar_lightning --cfg job
Hydra's own options (completion, multirun): python -m cifar_lightning --hydra-help
Commands, each with --help: python -m cifar_lightning COMMAND ...
{commands}
"""


def usage(config_dir: str | None = None) -> str:
    """The help text. config_dir: a folder with the user's own groups (--config-dir)."""
    roots = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    groups = {folder.name for root in roots if root.is_dir() for folder in root.iterdir() if folder.is_dir()}
    lines = []
    for group in sorted(groups - NOT_CHOSEN_HERE):
        names = sorted({name for root in roots for name in choices(group, root)})
        if names:
            lines.append(fill(f"{group}: {', '.join(names)}", width=110, subsequent_indent="  "))
    commands = [f"  {name:17}{does}" for name, does in COMMANDS.items()]
    return USAGE.format(groups="\n".join(lines), commands="\n".join(commands))


def check_completion(words: Sequence[str]) -> None:
    """Raise UserError unless `--shell-completion` is followed by what Hydra can do."""
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise UserError(f"--shell-completion {' '.join(words)}: write install=SHELL, SHELL one of {', '.join(SHELLS)}")


def complete_sub_folders() -> None:
    """Have Hydra complete `experiment=classic/lenet`, where it expects a group `experiment/classic`."""
    original = ConfigLoaderImpl.get_group_options

    def get_group_options(
        self: ConfigLoaderImpl, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG, **keys: Any
    ) -> list[str]:
        found = original(self, group_name, results_filter, **keys)
        if group_name.startswith("hydra"):
            return found
        if results_filter == ObjectType.GROUP:  # hparams_search belongs to the command search
            return [name for name in found if name != "hparams_search"] if group_name == "" else []
        return sorted({*found, *choices(group_name)})

    ConfigLoaderImpl.get_group_options = get_group_options  # type: ignore[assignment, method-assign]
