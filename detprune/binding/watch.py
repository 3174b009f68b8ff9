"""Detects that something else than the bound optimizer trains the weights, or nothing does.

At a step only a counter runs, and a look at which weights have gradients; the checks come later.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detprune.errors import InputError, listed
from detprune.loggers import logger

LOGGER = logger(__name__)


class StepWatch:
    """Counts the bound optimizer's steps, and detects that something else moves the weights.

    Their version numbers say so, and their sums where no number is counted: ``weight.data`` and other processes
    that share the weights write past it.

    Args:
        weights: the pruned weights.
        names: names of the weights.
        own_writes: number of writes of the pruner's hooks into each weight outside the steps.
        earlier: steps and losses of this outer iteration that came before this watch, with another optimizer or
            in the pruner of which this is a copy.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        names: Sequence[str],
        own_writes: Callable[[], Sequence[int]],
        earlier: tuple[int, int] = (0, 0),
    ) -> None:
        self._idle = 0
        self._weights, self._names, self._own_writes = weights, names, own_writes
        self._has_named = False
        self.begin()
        self.earlier_steps, self.earlier_losses = earlier

    def begin(self) -> None:
        """Start the count of an outer iteration."""
        self.steps = self.earlier_steps = self.earlier_losses = 0
        self._versions, self._sums = self._foreign_versions(), _sums(self._weights)
        self._looks, self._without = 0, list(range(len(self._weights)))

    def see_gradients(self) -> None:
        """Before a step: note which weights have a gradient."""
        self._looks += 1
        self._without = [i for i in self._without if self._weights[i].grad is None]

    def check(self, losses: int, *, ends: bool) -> None:
        """Raise an error if the weights are trained, but not by the bound optimizer's steps.

        Args:
            losses: number of losses observed since ``begin``.
            ends: whether an outer iteration ends, so that there must have been training.
        """
        if self.steps:
            self._idle = 0
            if ends and 0 < self.steps == self._looks:
                self._name_untrained()
            return
        versions = zip(self._foreign_versions(), self._versions, strict=True)
        losses = max(0, losses - self.earlier_losses)
        moved = [now != then for now, then in versions]
        grads = [weight.grad for weight in self._weights if weight.grad is not None]
        all_at_once = ends and not self.earlier_steps and all(moved) and bool(grads)
        trained = any(moved) if losses else all_at_once
        if ends and not any(moved):
            trained = any(map(_differ, self._sums, _sums(self._weights)))
        if trained:
            raise InputError(
                "no step of the bound optimizer was seen since the last update, and yet the weights are "
                "trained: by another optimizer (call attach(optimizer) when you make a new one), by a wrapper "
                "whose step does not call that of the optimizer, or by hand; or the step comes after this call"
            )
        if not (losses and _all_finite(grads)):
            return  # a GradScaler skips steps for infinite gradients
        # after a skipped step the loop clears the gradients, so one outer iteration without a step is no fault yet
        self._idle += ends
        if grads or self._idle > 1:
            warnings.warn(
                f"{losses} losses were observed and no step of the bound optimizer was seen since the last "
                "update, nor did the weights move: is another model trained, or a copy, or do gradients still "
                "accumulate?",
                stacklevel=4,
            )

    def look(self, losses: int, *, pruned: bool) -> None:
        """Check as within an outer iteration; after hard pruning, say once that no pruned weight had a gradient."""
        if not pruned:
            self.check(losses, ends=False)
            return
        is_untrained = 0 < self.steps == self._looks and len(self._without) == len(self._weights)
        if is_untrained and any(weight.requires_grad for weight in self._weights):
            self._name_untrained()

    def _name_untrained(self) -> None:
        """Say once which weights had no gradient since ``begin``."""
        if not self._without or self._has_named:
            return
        self._has_named = True
        if len(self._without) == len(self._weights):
            LOGGER.warning(
                "not one of %d steps had a gradient of the pruned weights (%s): frozen by now (requires_grad is "
                "False), or another model is trained, such as one that torch.load returned, of which the pruner does "
                "not know. Load saved weights into the model itself, with load_state_dict()",
                *(self.steps, listed(self._names)),
            )
            return
        LOGGER.warning(
            "no step of this outer iteration had a gradient of %s: frozen by now (requires_grad is False), or no "
            "part of the loss. Training cannot make up for what hard pruning takes of them; train them, or leave "
            "them dense with Budget(exclude=…)",
            listed([self._names[i] for i in self._without]),
        )

    def _foreign_versions(self) -> list[int]:
        pairs = zip(self._weights, self._own_writes(), strict=True)
        return [weight._version - own for weight, own in pairs]


def _sums(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The sum of each weight and of its absolute values; nothing waits for the device."""
    sums = []
    for weight in map(Tensor.detach, weights):
        width = torch.float32 if weight.device.type == "mps" else torch.float64
        sums.append((weight.sum(dtype=width), torch.linalg.vector_norm(weight, 1, dtype=width)))
    return sums


def _differ(before: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> bool:
    """Whether two of ``_sums`` differ by more than their rounding; what is not finite is told elsewhere."""
    (old, size), (new, _) = (tuple(map(float, pair)) for pair in (before, now))
    rounding = 1e-5 if before[0].dtype == torch.float32 else 1e-10
    return abs(new - old) > rounding * size and math.isfinite(new)


def _all_finite(grads: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(grad).all()) for grad in grads)
