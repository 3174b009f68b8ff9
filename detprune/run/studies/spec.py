"""What every file of several runs says: a recipe, and what is changed in it."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from detprune.run.recipe import FolderName, Section, read_yaml, validate

SettingsField = dict[str, Any]


class RunsSpec(Section):
    """Base of studies and of progressive pruning.

    Attributes:
        name: names it, and its folder below ``runs/``.
        recipe: that all runs start from; relative to this file.
        settings: what is changed in it for every run.
    """

    name: FolderName
    recipe: Path
    settings: SettingsField = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; the recipe's path becomes one from here.

        Raises:
            InputError: no such file, or everything that is wrong with it.
        """
        spec = validate(cls, read_yaml(path), str(path))
        return spec.model_copy(update={"recipe": Path(os.path.normpath(path.parent / spec.recipe))})


def rate_name(rate: float) -> str:
    """A compression rate in names and tables: short, and no two rates alike."""
    short = f"{rate:g}"
    return short if float(short) == rate else repr(rate)
