"""Errors for the user: each states the problem, the value, the allowed values and the way out."""

import difflib
from collections.abc import Iterable


class DetpruneError(Exception):
    """Base of every error that detprune raises on purpose; the command line prints it without a traceback."""


class InputError(DetpruneError, ValueError):
    """An argument, recipe, data set or checkpoint that cannot be used as given."""


class MissingLossError(InputError):
    """An outer iteration ended without a task loss, but the method compares task losses."""


class StorageError(DetpruneError):
    """The system refused: a full disk, a limit of file size, a folder that became read-only, no more open files."""


class NonFiniteError(DetpruneError, ArithmeticError):
    """A loss, weight or norm became NaN or infinite; the pruner's state is unchanged."""


class ZerosLostError(DetpruneError, RuntimeError):
    """Pruned weights are not zero any more: something other than the bound optimizer moved them."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed name closest to ``name``, or ``""``."""
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listed(items: Iterable[str], most: int = 5) -> str:
    """The first few items, and the number of the others: a diverged network has hundreds."""
    everything = list(items)
    more = len(everything) - most
    return ", ".join(everything[:most]) + (f" and {more} more" if more > 0 else "")


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a registry."""
    names = sorted(allowed)
    return InputError(f"unknown {kind} {name!r}{nearest(name, names)}; known: {', '.join(names)}")
