"""The number of groups that every family keeps, so that the network's cost meets the budget.

``uniform`` keeps the same share of all families. ``global`` removes channels step by step, first those with the
least loss for their cost. It is a greedy solution of a knapsack problem whose costs change as channels are removed
(Shen et al. 2022, "Structural pruning via latency-saliency knapsack"; there with latencies). The loss of a channel is
its share of the family's squared norm.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from detprune.channels.costs import Costs, Numbers
from detprune.channels.groups import ChannelGroups
from detprune.channels.labels import Row
from detprune.errors import InputError

Cost = Callable[[Row], Numbers]


def steps(groups: ChannelGroups, round_to: int) -> Row:
    """Step in which the families of each tie lose groups, so that widths are multiples of ``round_to``, (ties,)."""
    sizes = groups.sizes
    result = np.ones_like(sizes)
    for member in groups.members:
        ties = groups.tie_of_group[member.groups]
        inside = np.bincount(ties + 1, minlength=len(sizes) + 1)[1:]
        for number in np.flatnonzero(inside).tolist():
            per_group = max(1, round(inside[number] / sizes[number]))
            result[number] = math.lcm(
                int(result[number]), round_to // math.gcd(round_to, per_group)
            )
    return result


def least(sizes: Row, step: Row) -> Row:
    """The fewest groups that may stay: one step, or all groups of a family that is no wider than a step."""
    return np.minimum(sizes, step)


def uniform(sizes: Row, step: Row, cost: Cost, target: float) -> Row:
    """Counts at the same share of every family: the largest share at which the cost is not above the target."""
    shares = np.unique(
        np.concatenate(
            [np.arange(s, n + s, s) / n for n, s in zip(sizes, step, strict=True)] + [[0.0]]
        )
    )
    low, high = 0, len(shares) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if cost(at_share(sizes, step, float(shares[middle]))) <= target:
            low = middle
        else:
            high = middle - 1
    return at_share(sizes, step, float(shares[low]))


def at_share(sizes: Row, step: Row, share: float) -> Row:
    """Counts at a share of every family, rounded down to whole steps, at least one."""
    counts = np.floor(share * sizes / step + 1e-9).astype(np.int64) * step
    counts = np.where(share >= 1, sizes, counts)
    return np.asarray(np.clip(counts, least(sizes, step), sizes))


def by_loss(losses: Sequence[Numbers], sizes: Row, step: Row, cost: Cost, target: float) -> Row:
    """Remove the step with the least loss for its cost, again and again, until the target is met.

    Args:
        losses: by tie, what is lost of the family by keeping none, one, …, all of its groups: (size + 1,).
    """
    counts = sizes.copy()
    fewest = least(sizes, step)
    while cost(counts) > target:
        lower = np.maximum((counts - 1) // step * step, fewest)
        candidates: Row = np.flatnonzero(lower < counts)
        if not len(candidates):
            break
        trials = np.repeat(counts[None], len(candidates), 0)
        trials[np.arange(len(candidates)), candidates] = lower[candidates]
        saved = cost(counts) - cost(trials)
        lost = np.array([losses[t][lower[t]] - losses[t][counts[t]] for t in candidates.tolist()])
        best = int(np.argmin(lost / np.maximum(saved, 1e-12)))
        counts = trials[best]
    return counts


def fill_up(counts: Row, sizes: Row, step: Row, cost: Cost, target: float) -> Row:
    """Give steps back as long as the target allows it, first to the families that have lost the largest share."""
    counts = counts.copy()
    while True:
        higher = np.minimum(counts + step, sizes)
        candidates = np.flatnonzero(higher > counts)
        if not len(candidates):
            return counts
        trials = np.repeat(counts[None], len(candidates), 0)
        trials[np.arange(len(candidates)), candidates] = higher[candidates]
        fits = cost(trials) <= target
        if not fits.any():
            return counts
        share = counts[candidates] / sizes[candidates]
        counts = trials[int(np.argmin(np.where(fits, share, np.inf)))]


def refuse_unreachable(costs: Costs, step: Row, cost: Cost, share: float, what: str) -> None:
    """Refuse a target below the least cost that can be reached, and name that cost.

    Raises:
        InputError: the fixed part and one step of every family cost more than the target.
    """
    dense = float(cost(costs.sizes))
    fewest = float(cost(least(costs.sizes, step)))
    if fewest > share * dense:
        noun = "time is" if what == "latency" else "are"
        raise InputError(
            f"budget: {what} is {share:g}, but with one step of channels in every layer that can shrink "
            f"{fewest / dense:.3f} of the dense network's {noun} left; ask for "
            f"{math.ceil(1000 * fewest / dense) / 1000:g} or more, use a smaller round_to, or let more layers shrink"
        )
