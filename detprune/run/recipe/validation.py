"""Recipes read, changed, checked and written; what is wrong in one is told line by line."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from detprune.errors import InputError, nearest
from detprune.files import dump_yaml_text, load_yaml, parse_yaml
from detprune.run.recipe.base import Recipe, Section
from detprune.run.recipe.settings import assign, read_assignments

S = TypeVar("S", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe file safely.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    values = load_yaml(path)
    if not isinstance(values, dict):
        fault = "is empty" if values is None else "holds no mapping"
        raise InputError(
            f"{path} {fault}; a recipe consists of keys with values, as the files in configs/ do"
        )
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments to a copy of a recipe's mapping; see ``assign``."""
    changed = dict(values)
    for settings in read_assignments(assignments):
        changed = assign(changed, settings)
    return changed


def validate(kind: type[S], values: Mapping[str, Any], what: str = "the recipe") -> S:
    """Turn a mapping into a typed recipe, or into another section.

    Raises:
        InputError: all that is wrong, one line each: path, problem, value, nearest valid key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_describe(kind, dict(problem)) for problem in error.errors()]
        raise InputError(f"{what} is not valid:\n  " + "\n  ".join(lines)) from error


def dump_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every default spelled out; reading it back gives an equal recipe."""
    return dump_yaml_text(recipe.model_dump(mode="json"))


def is_same(stored: Any, recipe: Recipe) -> bool:
    """Whether a stored recipe, as read from YAML, equals this one.

    Keys that the stored recipe lacks count with their defaults: an earlier version of detprune did not know them.
    """
    return bool(spelled_out(stored, type(recipe)) == _plain(recipe))


def spelled_out(stored: Any, kind: type[Recipe]) -> Any:
    """A stored recipe with the defaults of the keys that it lacks; unchanged where it is no recipe of that kind."""
    try:
        return _plain(validate(kind, stored))
    except InputError:
        return stored


def _plain(recipe: Recipe) -> Any:
    return parse_yaml(dump_yaml(recipe), "the recipe")


def _describe(recipe_type: type[BaseModel], problem: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(recipe_type, problem["loc"][:-1])
        key = str(problem["loc"][-1])
        return f"unknown key {path}{nearest(key, known)}; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{path} is missing"
    if problem["type"] in ("model_type", "dataclass_type", "dict_type") and (
        known := _keys_at(recipe_type, problem["loc"])
    ):
        left_out = problem["input"] is False and _may_be_left_out(recipe_type, problem["loc"])
        return (
            f"{path} is {problem['input']!r}, but must be a mapping with keys: {', '.join(known)}"
            + ("; null leaves it out" if left_out else "")
        )
    if problem["type"] in ("tuple_type", "list_type"):
        single = isinstance(problem["input"], str | int | float)
        example = f", as in [{problem['input']}]" if single else ""
        return f"{path} is {problem['input']!r}, but must be a list{example}"
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return (
            f"{path}: {cause}"
            if not str(cause).startswith((path, f"unknown key {path}"))
            else str(cause)
        )
    message = f"{path}: {problem['msg']}, got {problem['input']!r}"
    if problem["type"] in ("string_type", "path_type") and isinstance(
        problem["input"], int | float
    ):
        return f"{message}; a text that YAML takes for another value stands in quotes, as in '1.10' or 'on'"
    return message


def _may_be_left_out(section: type, loc: tuple[Any, ...]) -> bool:
    """Whether null may stand in the place to which a path leads."""
    annotation: Any = section
    for part in loc:
        kinds = [k for k in (annotation, *get_args(annotation)) if hasattr(k, "model_fields")]
        if kinds and part in kinds[0].model_fields:
            annotation = kinds[0].model_fields[part].annotation
    return NoneType in get_args(annotation)


def _keys_at(section: type, loc: tuple[Any, ...]) -> list[str]:
    """Keys of the section, or of the dataclass in its place, to which a path leads."""
    for part in loc:
        if not issubclass(section, BaseModel) or str(part) not in section.model_fields:
            continue
        annotation = section.model_fields[str(part)].annotation
        candidates = [c for c in (annotation, *get_args(annotation)) if isinstance(c, type)]
        inner = [c for c in candidates if issubclass(c, BaseModel) or is_dataclass(c)]
        if not inner:
            return []
        section = inner[0]
    if issubclass(section, BaseModel):
        return list(section.model_fields)
    return [field.name for field in fields(cast("Any", section))]
