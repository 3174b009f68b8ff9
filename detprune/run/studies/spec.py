"""The part that all files of several runs share: a base recipe, and settings that change it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from detprune.errors import InputError
from detprune.run.recipe import FolderName, Section, Settings, read_yaml, validate

SettingsField = dict[str, Any]


class RunsSpec(Section):
    """Base of studies and of progressive pruning.

    Attributes:
        name: name of the study, and of its folder below ``runs/``.
        recipe: file of the recipe that all runs are based on; relative to this file.
        settings: changes of the recipe for all runs: dotted key → value.
    """

    name: FolderName
    recipe: Path
    settings: SettingsField = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; the recipe's path becomes relative to the working directory.

        Raises:
            InputError: there is no such file, or it has faults; all of them are listed.
        """
        values = read_yaml(path)
        if "task" in values and "recipe" not in values:
            raise InputError(
                f"{path} is the recipe of one run: detprune run {path}; a file of several runs names it as recipe: "
                f"{path.name}"
            )
        spec = validate(cls, values, str(path))
        return spec.model_copy(update={"recipe": Path(os.path.normpath(path.parent / spec.recipe))})


def refuse_fixed(origin: str, settings: Settings, fixed: Mapping[str, str]) -> None:
    """Refuse settings of keys that the file sets for every run by itself.

    Args:
        origin: where the settings stand.
        settings: dotted key → value.
        fixed: dotted key → key of the file that sets it.
    """
    for key in settings:
        if key in fixed:
            raise InputError(
                f"{origin} sets {key} to {settings[key]!r}, but {fixed[key]} of the file sets it for every run; leave "
                f"it out, and change {fixed[key]} in the file"
            )


def rate_name(rate: float) -> str:
    """A compression rate in names and tables: short, and no two rates alike."""
    short = f"{rate:g}"
    return short if float(short) == rate else repr(rate)
