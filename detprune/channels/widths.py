"""How many groups of channels a budget keeps in each tie."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from detprune.budgets import Budget, matches, matching
from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.costs import Costs, Numbers
from detprune.channels.groups import ChannelGroups
from detprune.channels.labels import Row
from detprune.channels.latency import Latency


def kept_groups(
    model: nn.Module,
    budget: Budget,
    groups: ChannelGroups,
    costs: Costs,
    step: Row,
    latency: Latency | None,
) -> Row:
    """For each tie, the number of groups of channels that a budget keeps.

    Args:
        model: the network, whose weights are compared where the allocation is ``global``.
        budget: what is left of MACs, parameters or time, which share of the channels goes, or sparsities by name.
        groups: the groups of channels that can be removed.
        costs: what the network costs with any number of groups.
        step: for each tie, the number of groups that are removed together.
        latency: the time of the network, where the budget is one of time.

    Raises:
        InputError: a budget out of reach, a pattern that names no weight.
    """
    sizes = costs.sizes
    if isinstance(budget.allocation, Mapping):
        return _by_name(budget, groups, sizes, step)
    if latency is None and budget.macs is None and budget.parameters is None:
        return allocation.at_share(sizes, step, 1 - (budget.sparsity or 0.0))
    cost: allocation.Cost
    if latency is not None:
        what, share, cost = "latency", float(budget.latency or 0.0), latency
    elif budget.macs is not None:
        what, share, cost = "macs", float(budget.macs), costs.macs
    else:
        what, share, cost = "parameters", float(budget.parameters or 0.0), costs.parameters
    allocation.refuse_unreachable(costs, step, cost, share, what)
    target = share * float(cost(sizes))
    if budget.allocation == "global":
        losses = _losses(model, groups)
        counts = allocation.by_loss(losses, sizes, step, cost, target)
    else:
        counts = allocation.uniform(sizes, step, cost, target)
    return allocation.fill_up(counts, sizes, step, cost, target)


def _by_name(budget: Budget, groups: ChannelGroups, sizes: Row, step: Row) -> Row:
    """Sparsity of the first pattern that names a weight of the family."""
    if not isinstance(budget.allocation, Mapping):
        raise TypeError("the allocation is no mapping")
    weights: list[list[str]] = [[] for _ in sizes]
    for member in groups.members:
        for number in groups.families_of(member.groups):
            weights[groups.families[number].tie].append(member.name)
    everything = [name for own in weights for name in own]
    for pattern in budget.allocation:
        matching(pattern, everything, "allocation")
    counts = sizes.copy()
    for tie, own in enumerate(weights):
        found = [s for p, s in budget.allocation.items() if any(matches(n, p) for n in own)]
        sparsity = found[0] if found else (budget.sparsity or 0.0)
        counts[tie] = allocation.at_share(sizes[tie : tie + 1], step[tie : tie + 1], 1 - sparsity)[
            0
        ]
    return counts


def _losses(model: nn.Module, groups: ChannelGroups) -> list[Numbers]:
    """For each tie and each number n of kept groups, the share of the squared norm lost, as mean over its families."""
    weights = dict(model.named_parameters())
    bound = BoundChannels(groups, np.ones(len(groups.ties), dtype=np.int64))
    norms = bound.squared_norms([weights[name].detach() for name in bound.names]).cpu().numpy()
    losses = []
    for tie in groups.ties:
        shares = []
        for number in tie:
            own = np.sort(norms[groups.families[number].groups])[::-1]
            total = own.sum() or 1.0
            shares.append(1 - np.concatenate([[0.0], np.cumsum(own)]) / total)
        losses.append(np.mean(shares, axis=0))
    return losses
