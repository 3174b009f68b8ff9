"""What a progressive pruning is: a recipe, and the rates through which it goes."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from detprune.errors import InputError
from detprune.run.recipe import FolderName, Section, read_yaml, validate
from detprune.run.studies.study.spec import SettingsField


class Progressive(Section):
    """Steps of pruning.

    Attributes:
        name: names it, and its folder below ``runs/``.
        recipe: of every step; relative to this file.
        settings: what is changed in it for every step.
        rates: compression rates, rising.
        pool: networks that are kept, each of which is pruned to the next rate.
    """

    name: FolderName
    recipe: Path
    settings: SettingsField = Field(default_factory=dict)
    rates: tuple[Annotated[float, Field(gt=1)], ...] = Field(min_length=1)
    pool: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _rates_rise(self) -> Self:
        for before, after in pairwise(self.rates):
            if after <= before:
                raise InputError(
                    f"rates fall from {before:g} to {after:g}; every step prunes more than the one before"
                )
        return self


def read_progressive(path: Path) -> Progressive:
    """Read its file; the recipe's path becomes one from here.

    Raises:
        InputError: no such file, or everything that is wrong with it.
    """
    spec = validate(Progressive, read_yaml(path), str(path))
    return spec.model_copy(update={"recipe": Path(os.path.normpath(path.parent / spec.recipe))})
