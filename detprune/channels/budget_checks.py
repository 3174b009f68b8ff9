"""Checks of a budget for whole channels, and the table of times that a latency budget names."""

from collections.abc import Mapping
from pathlib import Path

from detprune.budgets import Budget
from detprune.channels.latency_table import LatencyTable, read_table
from detprune.errors import InputError
from detprune.latency_targets import LatencyTarget


def check_budget(budget: Budget) -> None:
    """Refuse budgets that are for single weights, contradict themselves, or ask for nothing.

    Raises:
        InputError: what is wrong, and what can be given.
    """
    if not isinstance(budget, Budget):
        raise InputError(
            f"the budget is of type {type(budget).__name__}; make one, for example Budget(macs=0.5)"
        )
    if budget.compression is not None:
        raise InputError(
            f"compression is {budget.compression}, which counts single weights; for channels give the share that is "
            "left, macs=0.5 or parameters=0.4, or the share of channels that is removed, sparsity=0.5"
        )
    if budget.scope == "global":
        raise InputError(
            "scope='global' ranks single groups over all layers; for channels use allocation='global'"
        )
    if budget.allocation == "erk":
        raise InputError(
            "allocation is 'erk', which is for single weights; for channels: uniform, global, or a mapping"
        )
    shares = (budget.macs, budget.parameters, budget.latency)
    if isinstance(budget.allocation, Mapping) and shares != (None, None, None):
        raise InputError(
            "the allocation by name says how many channels of every layer go, and macs=, parameters= or latency= what "
            "is left of the network; give one of them"
        )
    if budget.allocation == "global" and shares == (None, None, None):
        raise InputError(
            "allocation='global' weighs channels against their cost; give macs=0.5, parameters=0.4 or latency=0.5 "
            "with it"
        )
    if (budget.sparsity, *shares) == (None, None, None, None) and not isinstance(
        budget.allocation, Mapping
    ):
        raise InputError(
            "the budget has no target; give macs=0.5, parameters=0.4, latency=0.5 or sparsity=0.5"
        )


def latency_table(budget: Budget) -> LatencyTable | None:
    """The table of a latency budget; None for other budgets.

    Raises:
        InputError: a latency whose times are not measured yet, or a table that cannot be used.
    """
    if budget.latency is None:
        return None
    target = budget.target or LatencyTarget()
    if target.table is None:
        raise InputError(
            f"latency is {budget.latency:g} on {target}, but the times of the layers are not measured yet; "
            "detprune run measures them. From Python use "
            "detprune.run.latency.measured_budget(model, sparsity_set, budget), which returns the budget with their "
            "table"
        )
    return read_table(Path(target.table))
