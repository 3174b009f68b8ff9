"""Settings: changes of a recipe, as a mapping of dotted keys to values.

Settings are mappings throughout the code. Only ``--set`` writes them as text, for users and for the processes
of a study.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from detprune.errors import InputError
from detprune.files import dump_yaml_line, parse_yaml

Settings = Mapping[str, Any]
"""Dotted key of a recipe → value."""


def assign(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Apply settings, one after the other, to a copy of a recipe's mapping.

    ``method.rho`` can also be set where the recipe has ``method: slr``.

    Raises:
        InputError: a key lies below something that is no mapping.
    """
    changed = dict(values)
    for key, value in settings.items():
        changed = _assign(changed, str(key).split("."), value, str(key))
    return changed


def _assign(values: dict[str, Any], keys: list[str], value: Any, whole: str) -> dict[str, Any]:
    key, rest = keys[0], keys[1:]
    if not rest:
        return {**values, key: value}
    inner = values.get(key) or {}
    if isinstance(inner, str):
        inner = {"name": inner}
    if not isinstance(inner, dict):
        raise InputError(f"--set {whole}: {key} is {inner!r}, which has no keys below it")
    return {**values, key: _assign(inner, rest, value, whole)}


def read_assignments(assignments: Sequence[str]) -> list[Settings]:
    """Settings from ``a.b=c`` texts, whose values are read as YAML; one mapping for each, for their order counts.

    Raises:
        InputError: a text without ``=``, or a value that is not YAML, or that YAML cuts off at a ``#``.
    """
    read: list[Settings] = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(
                f"--set {assignment!r} is no assignment; write --set KEY=VALUE, for example method.rho=0.1"
            )
        where = f"the value of --set {assignment[:80]!r}"
        value = parse_yaml(text, where)
        if (comment := _comment(text, value, where)) is not None:
            raise InputError(
                f"{where} ends before {comment[:80]!r}, which is a comment in YAML; put it in quotes of both kinds, "
                f"for example --set '{path}=\"photos #2\"'"
            )
        read.append({path: value})
    return read


def _comment(text: str, value: object, where: str) -> str | None:
    """The end of a text that YAML leaves out of its value: from a ``#`` after a blank on."""
    for found in re.finditer(r"(?:^|(?<=\s))#", text):
        try:
            if parse_yaml(text[: found.start()], where) == value:
                return text[found.start() :]
        except InputError:  # it stands between quotes
            continue
    return None


def assignments(settings: Settings) -> list[str]:
    """``key=value`` texts for ``--set``, with values as YAML on one line; ``read_assignments`` reverses it."""
    return [f"{key}={dump_yaml_line(value)}" for key, value in settings.items()]


def options_for(settings: Settings) -> str:
    """The settings as options of a command line: ``--set KEY=VALUE …``."""
    return " ".join(f"--set {shlex.quote(text)}" for text in assignments(settings))
