"""Tries out on the network itself that channels can be taken out of it."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.groups import ChannelGroups
from detprune.channels.removal import removed
from detprune.channels.tracing import Forward
from detprune.projections import zero_outside

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output: sums in another order come to 1e-6, an error to 1."""


def works_when_smaller(
    model: nn.Module,
    inputs: Sequence[object],
    forward: Forward,
    groups: ChannelGroups,
    ties: Sequence[int] | None = None,
    spare: nn.Module | None = None,
) -> str | None:
    """Take half of the channels out of a copy and compare it with the copy in which they are zero.

    Args:
        ties: numbers of the ties that lose channels; all of them if left out.
        spare: a copy of the model that can be used, of which the weights are set anew.

    Returns:
        None if the outputs agree, otherwise what went wrong.
    """
    sizes = np.array([len(groups.families[own[0]].groups) for own in groups.ties])
    counts = sizes.copy()
    chosen_ties = np.arange(len(sizes)) if ties is None else np.array(ties)
    smaller = sizes[chosen_ties]
    counts[chosen_ties] = allocation.at_share(smaller, np.ones_like(smaller), 0.5)
    bound = BoundChannels(groups, counts)
    zeroed = copy.deepcopy(model) if spare is None else spare
    if spare is not None:
        spare.load_state_dict(model.state_dict())
    zeroed.eval()
    weights = dict(zeroed.named_parameters())
    values = [weights[name] for name in bound.names]
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(groups.count, dtype=torch.float64, generator=generator).to(values[0].device)
    chosen = bound.chosen(norms)
    for value, mask in zip(values, bound.spread(values, chosen), strict=True):
        zero_outside(value, mask)
    try:
        with torch.no_grad(), torch.autocast(values[0].device.type, enabled=False):
            small = removed(zeroed, bound.kept_indices(chosen))
            expected, found = forward(zeroed, *inputs), forward(small, *inputs)
    except Exception as error:  # noqa: BLE001  whatever the user's own network raises
        return f"{type(error).__name__}: {error}"
    return _difference(expected, found)


def failing_ties(
    model: nn.Module, inputs: Sequence[object], forward: Forward, groups: ChannelGroups
) -> list[int]:
    """Numbers of the ties without whose channels the network does something else, found by halving.

    An operation takes a size from a tensor that has nothing else to do with it, for example: nothing that the
    run shows couples the two.
    """

    spare = copy.deepcopy(model)

    def search(ties: Sequence[int]) -> list[int]:
        if works_when_smaller(model, inputs, forward, groups, ties, spare) is None:
            return []
        if len(ties) == 1:
            return list(ties)
        middle = len(ties) // 2
        found = search(ties[:middle]) + search(ties[middle:])
        return found or list(ties)  # only together

    return search(range(len(groups.ties)))


def _difference(expected: object, found: object) -> str | None:
    pairs = list(zip(tree_leaves(expected), tree_leaves(found), strict=False))
    for one, other in pairs:
        if not isinstance(one, Tensor) or not one.is_floating_point():
            continue
        if one.shape != other.shape:
            return f"an output of shape {tuple(one.shape)} has shape {tuple(other.shape)}"
        finite = torch.isfinite(one)
        if not torch.equal(finite, torch.isfinite(other)):
            return "an output is not finite in one of the two"
        scale = float(one[finite].abs().max()) if finite.any() else 0.0
        worst = float((one - other)[finite].abs().max()) if finite.any() else 0.0
        if worst > _TOLERANCE * max(scale, 1e-6):
            return f"an output differs by {worst:.2g}, where the largest is {scale:.2g}"
    return None
