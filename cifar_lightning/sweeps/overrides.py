"""Expand the overrides of a sweep: globs, swept keys, and the overrides of each job."""

from collections.abc import Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override
from hydra.errors import OverrideParseException

from cifar_lightning.config.compose import conf_dir, parse_overrides
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError


def swept(overrides: Sequence[str]) -> list[str]:
    return [o.key_or_group for o in parse_overrides(overrides) if o.is_sweep_override()]


def jobs_of(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a sweep: all combinations of values."""
    try:
        expanded = [expand(override) or override.input_line for override in parse_overrides(overrides)]
    except OverrideParseException as error:
        raise UserError(f"can't read the override {error.override!r}: write key=value or key=value,value") from None
    return [list(job) for job in product(*_values(expanded))]


def one_job_for_each_choice(overrides: Sequence[str]) -> list[list[str]]:
    """As many jobs as the longest list has values, so that each value is in at least one of them."""
    columns = _values(overrides)
    return [[column[i % len(column)] for column in columns] for i in range(max(map(len, columns), default=1))]


def _values(overrides: Sequence[str]) -> list[list[str]]:
    return [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_discrete_sweep() and not o.is_hydra_override()
        else [o.input_line]
        for o in parse_overrides(overrides)
    ]


def expand(override: Override, config_dir: str | None = None) -> str | None:
    """`experiment=glob(classic/*)` with the list of matching choices; None for any other override.

    Unlike Hydra's globs these enter sub-groups: a `*` matches up to the next `/`.
    Raises UserError if nothing matches, for which Hydra would run nothing and report success.
    """
    glob = override.value()
    if not isinstance(glob, Glob):
        return None
    group = override.key_or_group
    names = sorted({name for root in (conf_dir(), config_dir) if root for name in choices(group, Path(root))})
    found = [n for n in names if matches(n, glob.include) and not matches(n, glob.exclude)]
    if not found:
        raise UserError(f"{override.input_line} matches nothing. Choose from: {', '.join(names)}")
    return f"{override.get_key_element()}={','.join(found)}"


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)
