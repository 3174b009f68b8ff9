"""Settings: changes of a recipe, as a mapping of dotted keys to values.

Settings are mappings throughout the code. Only ``--set`` writes them as text, for users and for the processes
of a study.
"""

from collections.abc import Mapping
from typing import Any

from detprune.errors import InputError
from detprune.files import dump_yaml_line

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


def assignments(settings: Settings) -> list[str]:
    """``key=value`` texts for ``--set``, with values as YAML on one line; ``read_assignments`` reverses it."""
    return [f"{key}={dump_yaml_line(value)}" for key, value in settings.items()]
