"""The overrides of a sweep: which keys it goes through, and which jobs it is."""

from collections.abc import Iterator, Sequence
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
    """The overrides of each run of a sweep."""
    try:
        parsed = parse_overrides(overrides)
        parsed = parse_overrides([expand(override, None) or override.input_line for override in parsed])
    except OverrideParseException as error:
        raise UserError(f"can't read the override {error.override!r}: write key=value or key=value,value") from None
    columns = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_discrete_sweep()
        else [o.input_line]
        for o in parsed
    ]
    return [list(job) for job in product(*columns)]


def one_job_for_each_choice(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Overrides of as many jobs as the longest list in a sweep has values: each value is checked at least once."""
    columns = []
    for override in parse_overrides(overrides):
        if override.is_discrete_sweep() and not override.is_hydra_override():
            columns.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            columns.append([override.input_line])
    for i in range(max((len(column) for column in columns), default=1)):
        yield [column[i % len(column)] for column in columns]


def expand(override: Override, config_dir: str | None) -> str | None:
    """`experiment=glob(classic/*)` as the list of what it finds, None for any other override.

    Hydra's own globs don't enter sub-groups. Here a `*` goes as far as the next `/`.
    Raises UserError where nothing is found: Hydra would run nothing, and call it done.
    """
    glob = override.value()
    if not isinstance(glob, Glob):
        return None
    group = override.key_or_group
    names = sorted({name for root in (conf_dir(), config_dir) if root for name in choices(group, Path(root))})
    found = [n for n in names if matches(n, glob.include) and not matches(n, glob.exclude)]
    if not found:
        raise UserError(f"{override.input_line} finds nothing. {group} has: {', '.join(names)}")
    return f"{override.get_key_element()}={','.join(found)}"


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)
