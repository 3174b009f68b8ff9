"""Problems of a data set, collected so that one error names them all: kind, number, the first few, the way out."""

from collections.abc import Iterable
from typing import NamedTuple

from detprune.errors import InputError

_SHOWN = 3


class Kind(NamedTuple):
    """What is wrong, and what to do about it."""

    problem: str
    way_out: str


Problems = dict[Kind, list[str]]
"""What was found of each kind: where, and the value."""


def listed(items: Iterable[str]) -> str:
    """The first few items, and how many more there are."""
    everything = list(items)
    more = len(everything) - _SHOWN
    return ", ".join(everything[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def refuse(what: object, problems: Problems) -> None:
    """Raise one `InputError` over everything found about ``what``, if anything was."""
    if problems:
        lines = [
            f"{kind.problem} ({len(found)}): {listed(found)}; {kind.way_out}"
            for kind, found in problems.items()
        ]
        raise InputError("\n- ".join([f"{what} cannot be used as it is:", *lines]))
