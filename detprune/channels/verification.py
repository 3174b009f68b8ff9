"""Tries out on the network itself that channels can be taken out of it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.copying import copied, fresh, same_noise, tensors_in, undisturbed
from detprune.channels.groups import ChannelGroups
from detprune.channels.removal import removed
from detprune.channels.tracing import Forward
from detprune.projections import zero_outside

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output: sums in another order come to 1e-6, an error to 1."""

_ROUNDINGS = 32
"""The same in units of the precision, which counts in half precision."""


def works_when_smaller(
    model: nn.Module,
    inputs: Sequence[object],
    forward: Forward,
    groups: ChannelGroups,
    ties: Sequence[int] | None = None,
) -> str | None:
    """Take half of the channels out of a copy and compare it with the copy in which they are zero.

    Noise is added to the weights of both, so that no branch is hidden that starts at zero; where that makes an
    output overflow, they are compared without it.

    Args:
        ties: numbers of the ties that lose channels; all of them if left out.

    Returns:
        None if the outputs agree, otherwise what went wrong.
    """
    sizes = np.array([len(groups.families[own[0]].groups) for own in groups.ties])
    counts = sizes.copy()
    chosen_ties = np.arange(len(sizes)) if ties is None else np.array(ties)
    smaller = sizes[chosen_ties]
    counts[chosen_ties] = allocation.at_share(smaller, np.ones_like(smaller), 0.5)
    bound = BoundChannels(groups, counts)
    with undisturbed(model):
        for noise in (1.0, 0.0):
            zeroed = copied(model).eval()
            _add_noise(zeroed, noise)
            small = _halved(zeroed, bound)
            try:
                same_noise()
                expected = tensors_in(forward(zeroed, *fresh(inputs)))
                if noise and not all(bool(torch.isfinite(tensor).all()) for tensor in expected):
                    continue
                same_noise()
                found = tensors_in(forward(small, *fresh(inputs)))
            except Exception as error:  # noqa: BLE001  whatever the user's own network raises
                return f"{type(error).__name__}: {error}"
            break
    return _difference(expected, found)


def _halved(zeroed: nn.Module, bound: BoundChannels) -> nn.Module:
    """Zero what the set asks for at norms that are drawn, and return a copy without it."""
    weights = dict(zeroed.named_parameters())
    values = [weights[name] for name in bound.names]
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(bound.groups.count, dtype=torch.float64, generator=generator)
    chosen = bound.chosen(norms.to(values[0].device))
    for value, mask in zip(values, bound.spread(values, chosen), strict=True):
        zero_outside(value, mask)
    return removed(zeroed, bound.kept_indices(chosen))


def _add_noise(model: nn.Module, scale: float) -> None:
    """Noise of the size that weights have at the start, on parameters and means."""
    generator = torch.Generator().manual_seed(0)
    means = [b for name, b in model.named_buffers() if name.endswith("running_mean")]
    for tensor in (*model.parameters(), *means):
        if tensor.is_floating_point() and tensor.numel():
            fan = tensor[0].numel() if tensor.dim() > 1 else 10
            noise = torch.randn(tensor.shape, generator=generator) * scale / max(1, fan) ** 0.5
            tensor.add_(noise.to(tensor.device, tensor.dtype))


def failing_ties(
    model: nn.Module, inputs: Sequence[object], forward: Forward, groups: ChannelGroups
) -> list[int]:
    """Numbers of the ties without whose channels the network does something else, found by halving.

    An operation takes a size from a tensor that has nothing else to do with it, for example: nothing that the
    run shows couples the two.
    """

    def search(ties: Sequence[int]) -> list[int]:
        if works_when_smaller(model, inputs, forward, groups, ties) is None:
            return []
        if len(ties) == 1:
            return list(ties)
        middle = len(ties) // 2
        found = search(ties[:middle]) + search(ties[middle:])
        return found or list(ties)  # only together

    return search(range(len(groups.ties)))


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> str | None:
    if len(expected) != len(found):
        return f"there are {len(found)} outputs in place of {len(expected)}"
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return f"an output of shape {tuple(one.shape)} has shape {tuple(other.shape)}"
        if not one.is_floating_point():
            continue
        finite = torch.isfinite(one)
        if not torch.equal(finite, torch.isfinite(other)):
            return "an output is not finite in one of the two"
        if not finite.any():
            continue
        scale = float(one[finite].abs().max())
        worst = float((one - other)[finite].abs().max())
        tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(one.dtype).eps)
        if worst > tolerance * max(scale, 1e-6):
            return f"an output differs by {worst:.2g}, where the largest is {scale:.2g}"
    return None
