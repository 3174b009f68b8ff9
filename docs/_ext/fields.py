"""Reads what recipes can say off the pydantic models and dataclasses: key, type, default, meaning."""

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel

NOTHING = object()
_PLAIN = {
    str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path",
    type(None): "`null`", object: "any value", Any: "any value",
}  # fmt: skip
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """One key of a mapping in a recipe."""

    name: str
    kind: str
    default: str
    meaning: str
    section: type | None


def keys(section: type) -> list[Key]:
    """The keys of a section (pydantic), or of the dataclass in its place."""
    meanings = described(section)
    return [
        Key(
            name,
            shown_type(hint, bounds),
            shown_default(default),
            meanings.get(name, ""),
            inner(hint),
        )
        for name, hint, default, bounds in _raw(section)
    ]


def described(section: type) -> dict[str, str]:
    """Name → text, from the ``Attributes:`` of the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if base.__doc__ and base.__module__.startswith("detprune"):
            found.update(_attributes(inspect.cleandoc(base.__doc__)))
    return found


def summary(section: type) -> str:
    """What stands in a class's docstring before its ``Attributes:``."""
    text = inspect.cleandoc(section.__doc__ or "")
    return re.split(r"\n(?:Attributes|Raises|Args):\n", text)[0].strip()


def inner(hint: Any) -> type | None:
    """The section or dataclass that a key holds, if it holds one."""
    if isinstance(hint, type):
        return hint if issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint) else None
    return next((found for arg in get_args(hint) if (found := inner(arg)) is not None), None)


def shown_type(hint: Any, bounds: Sequence[str] = ()) -> str:
    """A type in words."""
    text = _words(hint)
    return text + (f", {' and '.join(bounds)}" if bounds else "")


def shown_default(default: object) -> str:
    """A default as a recipe writes it."""
    if default is NOTHING:
        return "required"
    if default is None:
        return "`null`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, BaseModel) or dataclasses.is_dataclass(default):
        return "see below"
    if isinstance(default, Mapping):
        return "`{}`"
    if isinstance(default, tuple | list):
        return f"`[{', '.join(map(str, default))}]`"
    if isinstance(default, float) and math.isinf(default):
        return "none"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _raw(section: type) -> Iterator[tuple[str, Any, object, list[str]]]:
    if issubclass(section, BaseModel):
        for name, field in section.model_fields.items():
            default: object = (
                NOTHING if field.is_required() else field.get_default(call_default_factory=True)
            )
            bounds = [
                f"{sign}\u00a0{getattr(part, slot)}"
                for part in field.metadata
                for slot, sign in _BOUNDS.items()
                if getattr(part, slot, None) is not None
            ]
            yield name, field.annotation, default, bounds
        return
    hints = get_type_hints(section, include_extras=True)
    for option in dataclasses.fields(cast("Any", section)):
        if not option.compare:  # for Python only
            continue
        value = option.default if option.default is not dataclasses.MISSING else NOTHING
        if option.default_factory is not dataclasses.MISSING:
            value = option.default_factory()
        yield option.name, hints[option.name], value, []


def _words(hint: Any) -> str:
    if isinstance(hint, type) and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint)):
        return "mapping"
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(argument) for argument in arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_words(arguments[0])} to {_words(arguments[1])}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return "[" + ", ".join(map(_words, arguments)) + "]"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {_words(arguments[0])}"
    return getattr(hint, "__name__", str(hint)).lower()


def _attributes(text: str) -> dict[str, str]:
    """The entries of a Google-style ``Attributes:`` section; ``a, b: text`` describes both."""
    _, _, section = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    ([\w, ]+): (.*)", line) if not line.startswith("     ") else None
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
            found.update(dict.fromkeys(names, entry[2].strip()))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found
