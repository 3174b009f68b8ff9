"""Typed values from the content of a file, with one error for all faults."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from detprune.errors import InputError
from detprune.values import is_in_range

T = TypeVar("T")


@cache  # building one takes longer than reading a line with it
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[T], content: object, where: str, way_out: str) -> T:
    """A typed value from plain ones; keys that the type does not know are ignored.

    Args:
        kind: a dataclass or a pydantic model.
        content: plain values, as read from JSON or YAML.
        where: the file, and the line if it has several.
        way_out: what to do about it.

    Raises:
        InputError: keys that lack and values that cannot be used.
    """
    for key, number in _whole_numbers(content):
        if not is_in_range(number):  # it counts nothing, and what draws it cannot hold it
            raise InputError(
                f"{where} has values that cannot be used: {key or 'the whole'} is a whole number of "
                f"{number.bit_length()} bits (allowed are 63); {way_out}"
            )
    hashable: Any = kind  # mypy takes a type for none
    try:
        value: T = _adapter(hashable).validate_python(content)
        return value
    except ValidationError as error:
        raise InputError(f"{where} {_faults(error)}; {way_out}") from error


def _whole_numbers(content: object, key: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers in plain values, with their keys."""
    if isinstance(content, int):
        yield key, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _whole_numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from _whole_numbers(value, f"{key}[{place}]")


def _faults(error: ValidationError) -> str:
    missing: list[str] = []
    wrong: list[str] = []
    for fault in error.errors():
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        key = key.removeprefix(".")
        if fault["type"] == "missing":
            missing.append(key)
        else:
            wrong.append(f"{key or 'the whole'} is {fault['input']!r} ({fault['msg']})")
    parts = [f"lacks the keys {', '.join(missing)}"] if missing else []
    if wrong:
        parts.append(f"has values that cannot be used: {'; '.join(wrong)}")
    return " and ".join(parts)
