"""A sparsity that grows to the budget's over the first part of a run (Zhu & Gupta 2017, "To prune, or
not to prune", equation 1, from dense weights on)."""

from detprune.errors import InputError
from detprune.methods.base import Problem
from detprune.sets import SparsitySet
from detprune.values import check_number


def check_ramp(ramp: float, what: str) -> None:
    """Refuse a ramp outside [0, 1]."""
    allowed = "a share of the run from 0 (the whole sparsity at once) to 1"
    check_number(f"{what}: ramp", ramp, allowed, lambda share: 0 <= share <= 1)


def share_of_sparsity(ramp: float, progress: float) -> float:
    """Share of the target sparsity at a time: 1 − (1 − progress/ramp)³, 1 from ``ramp`` on.

    Args:
        ramp: share of the run over which the sparsity grows; 0: not at all.
        progress: the time, from 0 at the start of the run to 1 at its end.
    """
    if progress >= ramp:
        return 1.0
    return float(1 - (1 - progress / ramp) ** 3)


def refuse_fixed_sparsity(problem: Problem, what: str) -> None:
    """Refuse to let the sparsity grow where the structure fixes it (n:m)."""
    check_ramp_of_set(problem.sparsity_set, what)


def check_ramp_of_set(sparsity_set: SparsitySet, what: str) -> None:
    """Refuse a ramp for a set of fixed sparsity: n:m always has its own, and patterns never have less than theirs."""
    if sparsity_set.own_sparsity is not None:
        raise InputError(
            f"{what} lets the sparsity grow, but {sparsity_set!r} always has "
            f"{sparsity_set.own_sparsity:g}; leave the ramp out (ramp=0), or use another set"
        )
