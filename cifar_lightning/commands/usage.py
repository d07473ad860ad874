"""What `python -m cifar_lightning --help` prints; Hydra's own way to list the groups takes most of a second."""

from pathlib import Path
from textwrap import fill

from cifar_lightning.commands import COMMANDS
from cifar_lightning.config.compose import conf_dir
from cifar_lightning.config.hints import choices

NOT_CHOSEN_HERE = {"hydra", "hparams_search"}
USAGE = """\
Train and test CIFAR-10 networks: python -m cifar_lightning [group=choice] [key=value] ...

  python -m cifar_lightning                                        the baseline: a small ResNet
  python -m cifar_lightning experiment=classic/lenet               a named recipe
  python -m cifar_lightning model=resnet18 trainer.accelerator=gpu optimizer.lr=0.05
  python -m cifar_lightning -m activation=relu,tanh,gelu seed=1,2,3   a sweep
  python -m cifar_lightning data=digits                            small embedded data, no download
  python -m cifar_lightning ckpt_path=last                         go on with an interrupted run

Groups and their choices:
{groups}

All keys with their values: python -m cifar_lightning --cfg job
Hydra's own options (completion, multirun): python -m cifar_lightning --hydra-help
Commands, each with --help: python -m cifar_lightning COMMAND ...
{commands}
"""


def usage(config_dir: str | None = None) -> str:
    """The help text. `config_dir`: a folder of a person's own groups beside ours (--config-dir)."""
    roots = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    groups = {folder.name for root in roots if root.is_dir() for folder in root.iterdir() if folder.is_dir()}
    lines = []
    for group in sorted(groups - NOT_CHOSEN_HERE):
        names = sorted({name for root in roots for name in choices(group, root)})
        if names:
            lines.append(fill(f"{group}: {', '.join(names)}", width=110, subsequent_indent="  "))
    commands = [f"  {name:11}{does}" for name, does in COMMANDS.items()]
    return USAGE.format(groups="\n".join(lines), commands="\n".join(commands))
