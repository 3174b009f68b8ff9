"""Collected problems of a data set, for one error that lists kind, number, the first few, and the way out."""

from typing import NamedTuple

from detprune.errors import InputError, listed

_SHOWN = 3  # places are long: a path and a line


class Kind(NamedTuple):
    """A kind of problem, and its way out."""

    problem: str
    way_out: str


Problems = dict[Kind, list[str]]
"""Kind → the problems found, each as its place and value."""


def refuse(what: object, problems: Problems) -> None:
    """Raise one `InputError` with all problems of ``what``, if there are any."""
    if problems:
        lines = [
            f"{kind.problem} ({len(found)}): {listed(found, _SHOWN)}; {kind.way_out}"
            for kind, found in problems.items()
        ]
        raise InputError("\n- ".join([f"{what} cannot be used as it is:", *lines]))
