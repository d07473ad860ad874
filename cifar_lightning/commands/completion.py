"""Tab completion of the console command: Hydra's own, with what lies in a group's sub-folders."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType

from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError

SHELLS = ("bash", "fish", "zsh")


def check_request(words: Sequence[str]) -> None:
    """Raises UserError for what follows --shell-completion, if it is nothing that Hydra can do."""
    asked = [word.partition("=") for word in words]
    if len(asked) != 1 or asked[0][0] not in ("install", "uninstall", "query") or asked[0][2] not in SHELLS:
        raise UserError(f"--shell-completion {' '.join(words)}: write install=SHELL, SHELL one of {', '.join(SHELLS)}")


def complete_sub_folders() -> None:
    """Have Hydra complete `experiment=classic/lenet`, which it takes for a group `experiment/classic`."""
    hydras = ConfigLoaderImpl.get_group_options

    def get_group_options(
        self: ConfigLoaderImpl, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG, **keys: Any
    ) -> list[str]:
        found = hydras(self, group_name, results_filter, **keys)
        if group_name.startswith("hydra"):
            return found
        if results_filter == ObjectType.GROUP:  # hparams_search is the other command's
            return [name for name in found if name != "hparams_search"] if group_name == "" else []
        return sorted({*found, *choices(group_name)})

    ConfigLoaderImpl.get_group_options = get_group_options  # type: ignore[assignment, method-assign]
