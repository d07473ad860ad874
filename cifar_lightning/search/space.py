"""The space of a search: config keys with their distributions, and conditions under which they apply."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lightning.config.compose import quoted
from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError, nearest

FORMS = (
    "{type: float, low: 1e-4, high: 0.1, log: true}, {type: int, low: 1, high: 3}, {type: categorical, choices: [1, 2]}"
)


@dataclass(frozen=True)
class Parameter:
    """A config key with its distribution.

    arguments: those of Optuna's `suggest_<type>`, choices as in the file. when: other keys with the values, as text,
    that make this parameter active.
    """

    key: str
    type: str
    arguments: Mapping[str, Any]
    when: Mapping[str, Sequence[str]]

    @property
    def ends(self) -> Sequence[Any]:
        """The values to check before a search: every choice, or the lowest and the highest number."""
        return self.arguments["choices"] if self.type == "categorical" else [self.arguments[k] for k in ("low", "high")]

    def active(self, point: Mapping[str, Any]) -> bool:
        return all(key in point and text(point[key]) in values for key, values in self.when.items())


def text(value: Any) -> str:
    """The value as an override has it: `true`, `null`, `0.001`, `[8,16]`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./+-]+", value):
        return quoted(value)
    return str(value)


def overrides(point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={text(value)}" for key, value in point.items()]


def read_space(space: Any) -> list[Parameter]:
    """The parameters in the file's order. Raises UserError, naming the parameter and what is wrong."""
    if not isinstance(space, dict) or not space:
        raise UserError(f"space: must map config keys to distributions, such as optimizer.lr: {FORMS}")
    parameters: list[Parameter] = []
    for key, given in space.items():
        if not decides(str(key)).searched:
            raise UserError(f"space: {key} can't be searched over: trials that differ in it can't be compared")
        try:
            kind, when = given.get("type"), given.get("when", {})
            arguments = {name: value for name, value in given.items() if name not in ("type", "when")}
            check_arguments(kind, arguments)
            parameters.append(Parameter(str(key), kind, arguments, conditions(when, parameters)))
        except ValueError as error:
            raise UserError(f"space: {key}: {error}") from None
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"space: {key}: {given} is not one of {FORMS}") from None
    return parameters


def check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError for arguments that Optuna does not accept."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # an optional package

    if kind == "categorical":
        choices = arguments["choices"]
        if type(choices) is not list or len(set(map(text, choices))) < len(choices):
            raise ValueError(f"choices: {choices}: must be a list of different values")
        CategoricalDistribution(choices=list(map(text, choices)))
        return
    {"float": FloatDistribution, "int": IntDistribution}[kind](**arguments)
    if kind == "int" and any(isinstance(value, float) for value in arguments.values()):  # Optuna would round it
        raise ValueError("low, high and step must be integers")


def conditions(when: Mapping[str, Any], above: Sequence[Parameter]) -> dict[str, list[str]]:
    """The admissible values of each key as texts. Raises ValueError for one that the key can't have.

    A single value may stand without a list, unless it is a list itself.
    """
    possible = {p.key: [text(choice) for choice in p.arguments.get("choices", ())] for p in above}
    wanted = {key: list(map(text, values if isinstance(values, list) else [values])) for key, values in when.items()}
    for key, values in wanted.items():
        if not possible.get(key):
            raise ValueError(f"when: {key}: there is no categorical parameter above it of this name")
        for value in values:
            if value not in possible[key]:
                raise ValueError(f"when: {key} is never {value}{nearest(value, possible[key])}")
    return wanted


def corners(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """A few points that contain each end of each parameter. Raises UserError for a parameter that is never active."""
    unseen = {(p.key, text(end)) for p in space for end in p.ends}
    draw = random.Random(0)
    for _ in range(1000):  # drawing a point is quick, composing its config is not
        point: dict[str, Any] = {}
        for p in space:
            if p.active(point):
                new = [end for end in p.ends if (p.key, text(end)) in unseen]
                point[p.key] = draw.choice(new or p.ends)
        seen = unseen & {(key, text(value)) for key, value in point.items()}
        if seen:
            unseen -= seen
            yield point
    if unseen:
        raise UserError(f"space: {min(unseen)[0]}: when: these conditions never hold together")
