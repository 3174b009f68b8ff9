"""Typed values from the content of a file, with one error for all faults."""

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from detprune.errors import InputError

T = TypeVar("T")


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
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise InputError(f"{where} {_faults(error)}; {way_out}") from error


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
