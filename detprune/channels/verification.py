"""A trial on the network itself that channels can be removed from it."""

import traceback
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.copying import copied, fresh, same_noise, tensors_in, undisturbed
from detprune.channels.groups import ChannelGroups
from detprune.channels.removal import removed
from detprune.channels.tracing import Forward
from detprune.errors import InputError
from detprune.projections import zero_outside

_TOLERANCE = 1e-3
"""Largest allowed difference, relative to the largest output: another order of sums gives 1e-6, an error gives 1."""

_ROUNDINGS = 32
"""Largest allowed difference in units of the dtype's precision; in half precision it is the larger one."""

_ATTEMPTS = ((1.0, None), (1.0, torch.float64), (0.0, None))
"""Attempts: scale of the noise added to the weights, and dtype of the computation (None: the network's own).

Noise shows branches that start at zero. But it may make a network magnify rounding errors, which float64 excludes, or
overflow, so the last attempt is without noise.
"""


class Failure(NamedTuple):
    """The failure of a network with fewer channels.

    Attributes:
        text: text of the error, or of the difference.
        module: name of the innermost module that raised the error; empty if none did.
    """

    text: str
    module: str = ""


class Trial:
    """Compares a copy without half of the channels with a copy in which these channels are zero.

    Args:
        model: the network; it does not change.
        inputs, forward: how the network is run.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[object], forward: Forward) -> None:
        self._model = model
        self._inputs = inputs
        self._forward = forward
        self._copies: dict[tuple[float, torch.dtype | None], tuple[nn.Module, list[Tensor]]] = {}

    def failure(self, groups: ChannelGroups, ties: Sequence[int] | None = None) -> Failure | None:
        """The failure without half of the channels of some ties, or of all ties; None if there is none.

        Raises:
            InputError: the outputs hold no floating-point number, so that there is nothing to compare.
        """
        bound = _half(groups, ties)
        problem: Failure | None = None
        compared = False
        with undisturbed(self._model):
            for noise, dtype in _ATTEMPTS:
                outputs = self._outputs(bound, noise, dtype)
                if isinstance(outputs, Failure):
                    return outputs
                if outputs is None:
                    continue
                compared = True
                difference = _difference(*outputs)
                problem = None if difference is None else Failure(difference)
                if problem is None or dtype is not None:
                    break
        if not compared:
            raise InputError(
                "the outputs of the network hold no floating-point number on the example inputs (a detector that finds "
                "nothing? class numbers?), so that nothing shows whether they stay; pass other inputs, or forward=, a "
                "function that returns the scores before the selection"
            )
        return problem

    def _outputs(
        self, bound: BoundChannels, noise: float, dtype: torch.dtype | None
    ) -> tuple[list[Tensor], list[Tensor]] | Failure | None:
        """Outputs of the network with zeros and of the small one; a Failure if the small one raises an error.

        None if the attempt says nothing: the network with zeros overflows, does not run in this dtype, or its outputs
        hold nothing to compare.
        """
        zeroed = self._copy(noise, dtype)
        small = _halved(zeroed, bound)
        inputs = tree_map(lambda leaf: _in_precision(leaf, dtype), self._inputs)
        try:
            same_noise()
            expected = _values(self._forward(zeroed, *fresh(inputs)))
        except Exception as error:  # noqa: BLE001  whatever the user's own network raises
            return None if dtype is not None else _raised(error, zeroed)
        if not any(tensor.is_floating_point() and tensor.numel() for tensor in expected):
            return None
        if noise and not all(bool(torch.isfinite(tensor).all()) for tensor in expected):
            return None
        try:
            same_noise()
            return expected, _values(self._forward(small, *fresh(inputs)))
        except Exception as error:  # noqa: BLE001  whatever the user's own network raises
            return _raised(error, small)

    def _copy(self, noise: float, dtype: torch.dtype | None) -> nn.Module:
        if (noise, dtype) not in self._copies:
            network = copied(self._model).eval()
            if dtype is not None:
                network = network.to(dtype)
            _add_noise(network, noise)
            values = [parameter.detach().clone() for parameter in network.parameters()]
            self._copies[noise, dtype] = network, values
        network, values = self._copies[noise, dtype]
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(value)
        return network

    def failing_ties(self, groups: ChannelGroups, failure: Failure) -> list[int]:
        """Numbers of the ties whose removal changes the network's outputs, found by bisection.

        For example, an operation takes a size from a tensor that it has nothing else to do with: the run does not
        show that coupling. If a module raised the error, the ties of its weights are tried first.

        Args:
            groups: the groups, half of which cannot go.
            failure: the failure without that half.
        """

        def search(ties: Sequence[int]) -> list[int]:
            if self.failure(groups, ties) is None:
                return []
            if len(ties) == 1:
                return list(ties)
            middle = len(ties) // 2
            found = search(ties[:middle]) + search(ties[middle:])
            return found or list(ties)  # the halves fail only together

        everything = range(len(groups.ties))
        suspects = _ties_of(groups, failure.module)
        others = [tie for tie in everything if tie not in suspects]
        if suspects and others and self.failure(groups, others) is None:
            return search(suspects) or suspects
        return search(everything)


def _ties_of(groups: ChannelGroups, module: str) -> list[int]:
    """Numbers of the ties whose channels the weights of a module write or read."""
    rows = [row for (name, _), row in groups.slices.items() if name.startswith(f"{module}.")]
    numbers = {number for row in rows for number in groups.families_of(row)}
    return sorted({groups.families[number].tie for number in numbers})


def _raised(error: Exception, network: nn.Module) -> Failure:
    """The Failure for an error that the network raised, with the innermost of its modules that was running."""
    names = {id(module): name for name, module in network.named_modules()}
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [names[id(module)] for module in running if id(module) in names]
    return Failure(f"{type(error).__name__}: {error}", modules[-1] if modules else "")


def _half(groups: ChannelGroups, ties: Sequence[int] | None) -> BoundChannels:
    """The set that keeps half of the groups of some ties, and all groups of the others."""
    sizes = groups.sizes
    counts = sizes.copy()
    chosen = np.arange(len(sizes)) if ties is None else np.array(ties)
    smaller = sizes[chosen]
    counts[chosen] = allocation.at_share(smaller, np.ones_like(smaller), 0.5)
    return BoundChannels(groups, counts)


def _in_precision(leaf: object, dtype: torch.dtype | None) -> object:
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floating and isinstance(leaf, Tensor) else leaf


def _halved(zeroed: nn.Module, bound: BoundChannels) -> nn.Module:
    """Set groups to zero as the set projects random norms, and return a copy without these groups."""
    weights = dict(zeroed.named_parameters())
    values = [weights[name] for name in bound.names]
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(bound.groups.count, dtype=torch.float64, generator=generator)
    chosen = bound.chosen(norms.to(values[0].device))
    for value, mask in zip(values, bound.spread(values, chosen), strict=True):
        zero_outside(value, mask)
    return removed(zeroed, bound.kept_indices(chosen))


def _add_noise(model: nn.Module, scale: float) -> None:
    """Add noise, of the size of initial weights, to parameters and running means."""
    generator = torch.Generator().manual_seed(0)
    means = [b for name, b in model.named_buffers() if name.endswith("running_mean")]
    for tensor in (*model.parameters(), *means):
        if tensor.is_floating_point() and tensor.numel():
            fan = tensor[0].numel() if tensor.dim() > 1 else 10
            noise = torch.randn(tensor.shape, generator=generator) * scale / max(1, fan) ** 0.5
            tensor.add_(noise.to(tensor.device, tensor.dtype))


def _values(outputs: object) -> list[Tensor]:
    """All tensors in an output, complex ones as pairs of real numbers."""
    tensors = tensors_in(outputs)
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]


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
