"""Checks of argument values: each error names the argument, its value and the allowed values.

True and False are not accepted as numbers, nor is text that holds a number.
"""

import math
import numbers
import operator
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from detprune.errors import InputError

RANGE = "whole numbers below 2**63, and numbers whose size is 0 or from 1.2e-38 to 3.4e38 (single precision)"
"""What `is_in_range` takes, in words."""
_LARGEST, _SMALLEST = 3.4e38, 1.2e-38


def is_in_range(number: float) -> bool:
    """Whether torch can compute with a number; infinities and NaN are left to other checks."""
    if isinstance(number, int):
        return abs(number) < 1 << 63
    return not math.isfinite(number) or number == 0 or _SMALLEST <= abs(number) <= _LARGEST


def check_number(
    name: str, value: object, allowed: str, fits: Callable[[float], bool], *, finite: bool = True
) -> float:
    """Return an allowed real number as a float; other values are refused.

    Args:
        name: name of the argument, as the user knows it.
        value: the given value.
        allowed: the allowed values in words, for example ``"a number > 0"``.
        fits: whether a number is allowed; NaN never is.
        finite: whether infinities are refused too.

    Raises:
        InputError: another value.
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the range of float
            number = math.inf
        if not is_in_range(number):
            raise InputError(
                f"{name} is {str(value)[:40]}, which is out of range; allowed are {RANGE}"
            )
    if math.isnan(number) or (finite and math.isinf(number)) or not fits(number):
        raise _refused(name, value, allowed)
    return number


def check_whole(name: str, value: object, allowed: str, least: int = 1) -> int:
    """Return a whole number, at least ``least`` and below 2⁶³; other values are refused.

    Raises:
        InputError: another value.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number < 1 << 63:
        raise _refused(name, value, allowed)
    return number


def make_plain(instance: Any) -> None:
    """Turn what not every operation of torch takes for a number into floats, in a frozen dataclass.

    These are numbers of other libraries, fractions, and whole numbers from 2⁶³ on.
    """
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, float) or not isinstance(value, numbers.Real):
            continue
        if not isinstance(value, numbers.Integral) or abs(int(value)) >= 1 << 63:
            object.__setattr__(instance, field.name, float(value))


def check_flag(name: str, value: object) -> bool:
    """Return True or False; text is refused, because even ``"no"`` would count as true.

    Raises:
        InputError: another value.
    """
    if not isinstance(value, bool):
        raise _refused(name, value, "True or False")
    return value


def check_names(name: str, value: object) -> tuple[str, ...]:
    """Return a list of texts as a tuple; a single text is refused.

    Raises:
        InputError: another value; for one text by itself the list that was meant.
    """
    if isinstance(value, str):
        raise InputError(f"{name} is the string {value!r}; write a list of patterns: [{value!r}]")
    entries = tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(entry, str) for entry in entries):
        raise _refused(name, value, "a list of patterns, for example ['layer*.conv?']")
    return entries


def _refused(name: str, value: object, allowed: str) -> InputError:
    try:
        shown = f"{value!r:.60}"
    except ValueError:  # Python does not print an integer of thousands of digits
        shown = "an integer of thousands of digits"
    return InputError(f"{name} is {shown}, allowed is {allowed}")
