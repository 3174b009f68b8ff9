"""Hyperparameters of wrong types, NaN and infinities: each an InputError that names field and value."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import detprune as dp
from detprune.errors import InputError

WRONG_NUMBERS: list[Any] = ["3", "x", [1], {}, True, math.nan, 1j, object, torch.ones(2), 10**5000]
NUMBERS: list[tuple[Any, str]] = [
    (dp.ADMM, "rho"),
    (dp.ADMM, "ramp"),
    (dp.SLR, "rho"),
    (dp.SLR, "step_size"),
    (dp.SLR, "M"),
    (dp.SLR, "r"),
    (dp.SLR, "max_step"),
    (dp.SASADMM, "beta"),
    (dp.SASADMM, "tau"),
    (dp.SASADMM, "sigma"),
    (dp.SASADMM, "nu"),
    (dp.SASADMM, "q"),
    (dp.SASADMM, "l1"),
    (dp.SASADMM, "ramp"),
    (dp.GradualMagnitude, "ramp"),
    (dp.DPF, "ramp"),
    (dp.Pull, "start"),
    (dp.Pull, "end"),
    (dp.Growth, "start"),
    (dp.Growth, "factor"),
    (dp.Growth, "maximum"),
    (dp.Budget, "sparsity"),
    (dp.Budget, "compression"),
]
WHOLE: list[tuple[Any, str]] = [
    (dp.SASADMM, "inner_steps"),
    (dp.SASADMM, "k0"),
    (dp.SASADMM, "average_from"),
    (dp.GradualMagnitude, "every"),
    (dp.DPF, "every"),
    (dp.NM, "n"),
    (dp.NM, "m"),
    (dp.Block, "rows"),
    (dp.Block, "columns"),
]
OPTIONAL = {"step_size", "max_step", "l1", "average_from", "sparsity", "compression"}


def refused(kind: Any, options: Mapping[str, Any], field: str) -> str:
    """The message of the error, which names the field."""
    if kind is dp.Block:
        options = {"rows": 2, "columns": 2, **options}
    with pytest.raises(InputError, match=rf"\b{field} is .*allowed") as error:
        kind(**options)
    return str(error.value)


@pytest.mark.parametrize(("kind", "field"), NUMBERS)
def test_what_is_no_number_is_refused_by_name(kind: Any, field: str) -> None:
    infinities = [-math.inf] if field == "maximum" else [math.inf, -math.inf]
    for value in WRONG_NUMBERS[:-1] + infinities + ([] if field in OPTIONAL else [None]):
        message = refused(kind, {field: value}, field)
        assert repr(value)[:20] in message
        assert len(message) < 300
    if field != "maximum":  # which may be infinite
        assert "an integer of thousands of digits" in refused(kind, {field: 10**5000}, field)


@pytest.mark.parametrize(("kind", "field"), WHOLE)
def test_what_is_no_whole_number_is_refused_by_name(kind: Any, field: str) -> None:
    wrong = [*WRONG_NUMBERS, 0, -1, 1.5, 2.0, math.inf, 1 << 63]
    for value in wrong + ([] if field in OPTIONAL else [None]):
        refused(kind, {field: value}, field)


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (dp.ADMM, {"free_support": "no"}, "free_support"),
        (dp.SLR, {"free_support": 1}, "free_support"),
        (dp.Budget, {"sparsity": 0.9, "include": 5}, "include"),
        (dp.Budget, {"sparsity": 0.9, "include": [1, 2]}, "include"),
        (dp.Budget, {"sparsity": 0.9, "exclude": [None]}, "exclude"),
        (dp.Budget, {"sparsity": 0.9, "exclude": b"head"}, "exclude"),
        (dp.Budget, {"allocation": {1: 0.5}}, "allocation"),
        (dp.Budget, {"allocation": {"a": "0.5"}}, r"allocation\['a'\]"),
        (dp.Budget, {"allocation": {"a": True}}, r"allocation\['a'\]"),
        (dp.Budget, {"allocation": {"a": math.nan}}, r"allocation\['a'\]"),
        (dp.Pattern, {"kernel": 3}, "kernel"),
        (dp.Pattern, {"kernel": (3,)}, "kernel"),
        (dp.Pattern, {"kernel": ("3", 3)}, "kernel"),
        (dp.Pattern, {"patterns": 4}, "patterns"),
        (dp.Pattern, {"patterns": (4,)}, "pattern"),
        (dp.Pattern, {"patterns": ((0, 1.5),)}, "pattern"),
    ],
)
def test_flags_lists_and_shapes_of_wrong_types_are_refused(
    kind: Any, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError, match=rf"{field}.* is .*allowed"):
        kind(**options)


@pytest.mark.parametrize("value", ["0.9", True, math.nan, [0.9], None.__class__])
def test_a_projection_at_what_is_no_sparsity_is_refused(value: Any) -> None:
    for sparsity_set in (dp.Unstructured(), dp.NM(2, 4), dp.Pattern()):
        with pytest.raises(InputError, match=r"sparsity is .*allowed"):
            sparsity_set.mask(torch.ones(4, 4, 3, 3), value)


def test_numbers_of_other_libraries_are_numbers() -> None:
    assert dp.ADMM(rho=np.float32(0.5)).rho == 0.5
    assert dp.Budget(compression=Fraction(10)).pruned_share == 0.9
    assert dp.SASADMM(inner_steps=np.int64(7)).planned_steps(1) == 7
    for half in (Fraction(1, 2), np.float32(0.5)):
        assert (
            type(dp.SASADMM(beta=half).beta) is float
        )  # torch takes neither of the two everywhere
        assert type(dp.Budget(latency=half).latency) is float
    assert dp.Growth(0.1, 2).at(2) == 0.2
    assert dp.Budget(sparsity=0.5, exclude=None).exclude == ()  # type: ignore[arg-type]
