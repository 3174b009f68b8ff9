"""The state of ADMM and SLR: k, ρ, and per tensor Z and the anchor A = Z − Λ/ρ (see ``splitting.py``)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detprune.loggers import logger
from detprune.methods.base import TRANSIENT, State

LOGGER = logger(__name__)

_STILL = 5e-4
"""Share of the highest learning rate below which a network hardly trains; three drops by 10 are usual at the end."""

_STILL_PART = 0.1
"""Part of a run's outer iterations that may be still; cosine, linear and polynomial schedules end within 0.03."""


@dataclass
class SplittingState(State):
    """k, ρ, and Z (``target``) and A (``anchor``) per tensor; with a free support also T (``kept``).

    Attributes:
        rho: ρ; by pull, that of the last outer iteration that has ended, because Λ = ρ(Z − A) must hold.
        opened: whether the present outer iteration has had a step.
        strength: ρ that U = Λ/ρ belongs to, or the pull where ρ is chosen by pull; 0: unknown.
        pulled, time: pull and Σ lr, or Σ lr/(1 − momentum), of the steps so far in the present outer iteration;
            ``pulled`` is None where unknown.
        held: b of ``momentum.py`` per tensor.
        highest: highest learning rate so far, per tensor.
        shares: shares of W − A that the proximal map takes after the present step; not saved.
        told: whether the warning of a wrong number of steps was given; not saved.
        told_still: whether a warning of a learning rate of 0, or of nearly 0, was given; not saved.
        most, still: highest ``time`` of an outer iteration so far, and the number of outer iterations since it fell
            below a small share of that; not saved.
    """

    rho: float = 0.0
    opened: bool = False
    strength: float = 0.0
    pulled: float | None = 0.0
    time: float = 0.0
    held: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)
    shares: list[float] | None = field(default=None, metadata=TRANSIENT)
    told: bool = field(default=False, metadata=TRANSIENT)
    told_still: bool = field(default=False, metadata=TRANSIENT)
    most: float = field(default=0.0, metadata=TRANSIENT)
    still: int = field(default=0, metadata=TRANSIENT)

    def upgraded(self, scalars: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert the scalars of version 0.1, whose anchor was already that of the next ρ, and which kept no sums."""
        if "opened" in scalars or "rho" not in scalars:
            return scalars
        zeros = [0.0] * len(self.anchors)
        sums = {"pulled": 0.0, "time": 0.0, "held": zeros, "highest": zeros}
        return {**scalars, "opened": True, "strength": 0.0, **sums}

    def warn_of_no_training(self, updates: int | None) -> None:
        """Warn once if the learning rate was 0 in an outer iteration, or nearly 0 in many.

        Args:
            updates: number of outer iterations of the run, where it is known.
        """
        if self.told_still or not self.opened or self.pulled is None:
            return
        if self.time > 0:
            self._warn_of_hardly_any_training(updates)
            return
        self.told_still = True
        LOGGER.warning(
            "the learning rate was 0 at every step of outer iteration %d: the network did not train, %s. Let the "
            "schedule begin and end above 0, or take fewer outer iterations",
            self.k + 1,
            "and the penalty alone moved its weights"
            if self.pulled
            else "but the multipliers grow",
        )

    def _warn_of_hardly_any_training(self, updates: int | None) -> None:
        self.most = max(self.most, self.time)
        self.still = self.still + 1 if self.time < _STILL * self.most else 0
        if updates is None or self.still < max(2, math.ceil(_STILL_PART * updates)):
            return
        self.told_still = True
        LOGGER.warning(
            "the learning rate has been below %g of its highest value for %d outer iterations, up to number %d of %d: "
            "the network hardly trains any more, so that it does not adapt to its pruning. If the schedule counts "
            "epochs, step it once an epoch; else let it fall more slowly, or take fewer outer iterations",
            *(_STILL, self.still, self.k + 1, updates),
        )

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Λ/ρ ← factor · Λ/ρ, in place: A ← Z − factor·(Z − A)."""
        if factor < 1:
            for target, anchor in zip(self.targets, self.anchors, strict=True):
                anchor.lerp_(target, 1 - factor)

    @property
    def targets(self) -> list[Tensor]:
        """Z per tensor."""
        return self.tensors["target"]

    @property
    def anchors(self) -> list[Tensor]:
        """A = Z − Λ/ρ per tensor; during an update, the point V = W + Λ/ρ that is projected."""
        return self.tensors["anchor"]

    @property
    def supports(self) -> list[Tensor]:
        """T per tensor, boolean; empty unless the support is free."""
        return self.tensors.get("kept", [])

    def multipliers(self) -> Iterator[Tensor]:
        """Λ = ρ(Z − A), tensor by tensor."""
        for target, anchor in zip(self.targets, self.anchors, strict=True):
            yield (target - anchor).mul_(self.rho)
