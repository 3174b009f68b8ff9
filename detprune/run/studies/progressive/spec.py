"""The file of a progressive pruning: a recipe, and the rates of its steps."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from detprune.errors import InputError
from detprune.run.studies.spec import RunsSpec


class Progressive(RunsSpec):
    """Progressive pruning of one recipe, in steps.

    Attributes:
        rates: compression rates of the steps, rising.
        pool: number of best networks that are kept; each of them is pruned to the next rate.
    """

    rates: tuple[Annotated[float, Field(gt=1)], ...] = Field(min_length=1)
    pool: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _rates_rise(self) -> Self:
        for before, after in pairwise(self.rates):
            if after <= before:
                raise InputError(
                    f"rates: {after:g} follows {before:g}; give rising rates, for every step prunes more than the last"
                )
        return self
