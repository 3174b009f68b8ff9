"""What a progressive pruning is: a recipe, and the rates through which it goes."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from detprune.errors import InputError
from detprune.run.studies.spec import RunsSpec


class Progressive(RunsSpec):
    """Steps of pruning.

    Attributes:
        rates: compression rates, rising.
        pool: networks that are kept, each of which is pruned to the next rate.
    """

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
