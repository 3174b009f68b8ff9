"""Methods, sets and budgets as they are written in a recipe.

Each is a frozen dataclass of the core. In YAML, a method or a set is written as its name (``method: slr``), or
as a mapping of name and options (``method: {name: slr, rho: auto}``); a budget is a mapping of options.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.errors import InputError, nearest, unknown
from detprune.latency_targets import LatencyTarget
from detprune.methods import METHODS, Growth, Method, Pull, name_of
from detprune.sets import SETS, SparsitySet

T = TypeVar("T")

SETS_BY_NAME: dict[str, type[SparsitySet]] = {**SETS, "coupled_channels": CoupledChannels}
"""Every set that recipes and the command line know."""


def parse_method(value: object) -> object:
    """A method from its recipe form; a ``Method`` is returned as it is."""
    return value if isinstance(value, Method) else _from_registry("method", METHODS, value)


def parse_set(value: object) -> object:
    """A sparsity set from its recipe form; a ``SparsitySet`` is returned as it is."""
    return value if isinstance(value, SparsitySet) else _from_registry("set", SETS_BY_NAME, value)


def parse_budget(value: object) -> object:
    """A budget from its mapping; a budget is returned as it is."""
    return value if isinstance(value, Budget) else _from_mapping("budget", Budget, value)


def dump(value: object) -> object:
    """The recipe form of a component, with every option spelled out."""
    if isinstance(value, Pull | Growth):
        # infinity, which JSON does not have, is null: no maximum
        options = {k: None if v == math.inf else v for k, v in dataclasses.asdict(value).items()}
        return {type(value).__name__.lower(): options}
    name = {"name": registered_name(value)} if isinstance(value, Method | SparsitySet) else {}
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    return {**name, **{option: dump(getattr(value, option)) for option in _options(type(value))}}


def registered_name(component: Method | SparsitySet) -> str:
    """The name of a method or a set in a recipe; the name of its class where it is not registered."""
    if isinstance(component, Method):
        return name_of(component)
    names = {kind: name for name, kind in SETS_BY_NAME.items()}
    return names.get(type(component), type(component).__qualname__)


def _from_registry(kind: str, table: Mapping[str, type[T]], value: object) -> T:
    if isinstance(value, str):
        name, options = value, {}
    elif isinstance(value, Mapping) and "name" in value:
        options = dict(value)
        name = str(options.pop("name"))
    else:
        raise InputError(
            f"{kind} is {value!r}; write its name, or a mapping with name and options; "
            f"names: {', '.join(sorted(table))}"
        )
    if name not in table:
        raise unknown(kind, name, table)
    return _from_mapping(kind, table[name], options)


def _from_mapping(path: str, component: type[T], value: object) -> T:
    if not isinstance(value, Mapping):
        raise InputError(f"{path} is {value!r}; write a mapping of its options")
    fields = _options(component)
    for key in value:
        if key not in fields:
            known = f"known: {', '.join(fields)}" if fields else "it takes no options"
            raise InputError(f"unknown key {path}.{key}{nearest(str(key), fields)}; {known}")
    options = dict(value)
    if isinstance(options.get("rho"), Mapping):
        options["rho"] = _parse_schedule(f"{path}.rho", options["rho"])
    if component is Budget and isinstance(options.get("target"), Mapping):
        options["target"] = _from_mapping(f"{path}.target", LatencyTarget, options["target"])
    for key, given in options.items():
        if isinstance(given, float) and not math.isfinite(given):
            raise InputError(f"{path}.{key} is {given}, which is no finite number")
        hint = str(next(f.type for f in dataclasses.fields(component) if f.name == key))  # type: ignore[arg-type]
        if isinstance(given, bool) and "bool" not in hint and ("float" in hint or "int" in hint):
            raise InputError(f"{path}.{key} is {str(given).lower()}, which is no number")
    try:
        return TypeAdapter(component).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([path, *(str(part) for part in first["loc"][:1])])
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise InputError(f"{path}: {cause}") from error
        raise InputError(f"{where}: {first['msg']}, got {first['input']!r}") from error


def _options(component: type[object]) -> list[str]:
    """The fields that a recipe can set; fields with ``compare=False`` are for Python only."""
    return [f.name for f in dataclasses.fields(component) if f.compare]  # type: ignore[arg-type]


def _parse_schedule(path: str, value: Mapping[str, object]) -> Pull | Growth:
    schedules: dict[str, type[Pull] | type[Growth]] = {"pull": Pull, "growth": Growth}
    if len(value) != 1 or next(iter(value)) not in schedules:
        raise InputError(
            f"{path} is {dict(value)!r}; allowed are a number, auto, {{pull: {{start: 0.3, end: 3}}}}, "
            "{growth: {start: 0.1, factor: 1.3}}"
        )
    name, options = next(iter(value.items()))
    if (
        name == "growth"
        and isinstance(options, Mapping)
        and options.get("maximum") in (None, math.inf)
    ):
        options = {option: given for option, given in options.items() if option != "maximum"}
    return _from_mapping(f"{path}.{name}", schedules[name], options)


MethodField = Annotated[Method, BeforeValidator(parse_method), PlainSerializer(dump)]
SetField = Annotated[SparsitySet, BeforeValidator(parse_set), PlainSerializer(dump)]
BudgetField = Annotated[Budget, BeforeValidator(parse_budget), PlainSerializer(dump)]
