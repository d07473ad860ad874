"""The space of a search, as YAML gives it: a parameter for each config key or group, some only under conditions.

Needs neither Optuna nor torch, so that a mistake is answered before they are imported.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cifar_lightning.config.compose import quoted
from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError, nearest

# What each type needs, and what it may have; `when` may stand anywhere.
TYPES = {
    "float": (("low", "high"), ("log", "step")),
    "int": (("low", "high"), ("log", "step")),
    "categorical": (("choices",), ()),
}


@dataclass(frozen=True)
class Parameter:
    """One key of the config and what it may become; of a list in `choices` Optuna sees the text."""

    key: str
    type: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # values as text, by key; all must hold

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are checked: every choice, or the lowest and the highest number."""
        return self.choices if self.type == "categorical" else (self.low, self.high)

    def active(self, drawn: Mapping[str, Any]) -> bool:
        """Whether its conditions hold for what the parameters above it became."""
        return all(key in drawn and text(drawn[key]) in values for key, values in self.when.items())


def text(value: Any) -> str:
    """The value as an override says it: `true`, `null`, `0.001`, `[8,16]`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./+-]+", value):
        return quoted(value)
    return str(value)


def overrides(drawn: Mapping[str, Any]) -> list[str]:
    return [f"{key}={text(value)}" for key, value in drawn.items()]


def read_space(space: Any) -> tuple[Parameter, ...]:
    """The parameters in their order. Raises UserError, naming the parameter and what is wrong with it."""
    if not isinstance(space, dict) or not space:
        raise UserError("space: must name at least one config key and what it may become")
    parameters: list[Parameter] = []
    for key, given in space.items():
        try:
            parameters.append(_parameter(str(key), given, {p.key: p for p in parameters}))
        except ValueError as error:
            raise UserError(f"space: {key}: {error}") from None
    return tuple(parameters)


def _parameter(key: str, given: Any, above: Mapping[str, Parameter]) -> Parameter:
    if not decides(key).searched:
        raise ValueError("can't be searched over: it is the same in all trials, so that they can be compared")
    if not isinstance(given, dict):
        raise ValueError("write {type: float, low: …, high: …}, or {type: categorical, choices: [...]}")
    kind = given.get("type")
    if kind not in TYPES:
        hint = ". Choose from: float or int (with log: true for a log scale), categorical"
        raise ValueError(f"type: {kind}: there is no such type{hint}")
    needed, possible = TYPES[kind]
    for name in given:
        if name not in ("type", "when", *needed, *possible):
            raise ValueError(f"{kind} has no {name}{nearest(str(name), [*needed, *possible, 'type', 'when'])}")
    for name in needed:
        if name not in given:
            raise ValueError(f"{name} is missing")
    values = {name: given[name] for name in (*needed, *possible) if name in given}
    if kind == "categorical":
        values["choices"] = _choices(values["choices"])
    else:
        _check_numbers(kind, **values)
    return Parameter(key, kind, when=_conditions(given.get("when", {}), above), **values)


def _choices(choices: Any) -> tuple[Any, ...]:
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError(f"choices: {choices}: must be a list of two or more")
    if any(isinstance(choice, dict) for choice in choices):
        raise ValueError("choices: each must be a text, a number, true, false, null or a list")
    if len(set(map(text, choices))) < len(choices):
        raise ValueError("choices: one of them is there twice")
    return tuple(tuple(choice) if isinstance(choice, list) else choice for choice in choices)


def _check_numbers(kind: str, low: Any, high: Any, log: Any = False, step: Any = None) -> None:
    allowed = (int,) if kind == "int" else (int, float)
    for name, value in {"low": low, "high": high, "step": step}.items():
        if value is not None and type(value) not in allowed:
            raise ValueError(f"{name}: {value}: must be {'an integer' if kind == 'int' else 'a number'}")
    if type(log) is not bool:
        raise ValueError(f"log: {log}: must be true or false")
    if low > high:
        raise ValueError(f"low: {low} is above high: {high}")
    if log and low <= 0:
        raise ValueError(f"low: {low}: must be above 0 on a log scale")
    if log and step is not None:
        raise ValueError("a log scale has no step")
    if step is not None and step <= 0:
        raise ValueError(f"step: {step}: must be above 0")


def _conditions(when: Any, above: Mapping[str, Parameter]) -> dict[str, tuple[str, ...]]:
    if not isinstance(when, dict):
        raise ValueError("when: write {parameter: value} or {parameter: [value, value]}")
    conditions = {}
    for key, values in when.items():
        parameter = above.get(key)
        if parameter is None:
            raise ValueError(f"when: there is no parameter {key} above it{nearest(str(key), list(above))}")
        if parameter.type != "categorical":
            raise ValueError(f"when: {key} is no categorical parameter")
        valid = [text(choice) for choice in parameter.choices]
        # One value, or a list of values; a value that is a list itself needs to be in one.
        wanted = [text(value) for value in (values if isinstance(values, list) else [values])]
        for value in wanted:
            if value not in valid:
                raise ValueError(f"when: {key} never is {value}{nearest(value, valid)}")
        conditions[str(key)] = tuple(wanted)
    return conditions


def corners(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Points of the space that together have each end of each parameter: few, so that all can be composed."""
    todo = [(parameter, value) for parameter in space for value in parameter.ends]
    parameters = {parameter.key: parameter for parameter in space}
    while todo:
        target, value = todo[0]
        forced = {**_needed_for(target, parameters), target.key: value}
        point: dict[str, Any] = {}
        for parameter in space:
            if parameter.active(point):
                open_ends = [end for other, end in todo if other is parameter]
                point[parameter.key] = forced.get(parameter.key, (open_ends or parameter.ends)[0])
        if target.key not in point:
            raise UserError(f"space: {target.key}: when: these conditions never hold together")
        todo = [(p, end) for p, end in todo if not (p.key in point and text(point[p.key]) == text(end))]
        yield point


def _needed_for(parameter: Parameter, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    needed: dict[str, Any] = {}
    for key, values in parameter.when.items():
        above = parameters[key]
        needed |= _needed_for(above, parameters)
        # Of several values that will do one that the conditions further up have asked for already.
        if key not in needed or text(needed[key]) not in values:
            needed[key] = next(choice for choice in above.choices if text(choice) in values)
    return needed
