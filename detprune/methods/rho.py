"""Choosing the penalty coefficient ρ, by hand or by the pull that is wanted.

What a value of ρ does depends on the learning rate and the number of steps between two updates of Z: the
penalty alone shrinks W − A over one outer iteration by

    exp(−pull),   pull = lr · ρ · steps,

exactly where it is proximal, and where it goes through the gradient only with plain SGD. There momentum
multiplies the effective step, so that pull = lr · ρ · steps / (1 − momentum), as long as many steps lie
between two updates. ``Pull`` asks for that pull and works ρ out, so that a recipe survives another batch
size, learning rate or data set.
"""

import math
from dataclasses import dataclass

from detprune.errors import InputError
from detprune.methods.base import Pace


@dataclass(frozen=True)
class Pull:
    """ρ such that W moves towards Z by 1 − exp(−pull) per outer iteration, growing over the run.

    Attributes:
        start: pull of the first outer iteration; 0.3 closes about a quarter of the gap.
        end: pull of the last; in between it grows geometrically.
    """

    start: float = 0.3
    end: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end < math.inf:
            raise InputError(f"pull grows from {self.start} to {self.end}; needs 0 < start ≤ end")

    def at(self, k: int, pace: Pace) -> float:
        """ρ for outer iteration ``k`` (from 1).

        Raises:
            InputError: a penalty through the gradient of an optimizer without SGD's momentum, or an unknown
                length of the run.
        """
        if pace.momentum is None:
            raise InputError(
                "rho by pull is worked out for SGD (lr, momentum) where the penalty goes through the gradient, "
                "and this optimizer is another; leave out penalty, or give rho as a number, for example rho=0.1"
            )
        if pace.steps_per_update is None or pace.updates is None:
            raise InputError(
                "rho by pull needs the length of the run: pass steps_per_update= (optimizer steps "
                "between two calls of update) and updates= (number of such calls) to Pruner"
            )
        if not pace.learning_rate > 0:
            raise InputError(
                f"rho by pull divides by the learning rate, which is {pace.learning_rate}; "
                "start the schedule above zero"
            )
        progress = min(1.0, (k - 1) / max(1, pace.updates - 1))
        pull = self.start * math.pow(self.end / self.start, progress)
        return pull * (1 - pace.momentum) / (pace.learning_rate * pace.steps_per_update)


@dataclass(frozen=True)
class Growth:
    """ρ ← min(factor · ρ, maximum) after every outer iteration (Boyd et al. 2011, section 3.4.1)."""

    start: float = 0.1
    factor: float = 1.3
    maximum: float = math.inf

    def __post_init__(self) -> None:
        check_rho(self.start)
        if not (self.factor >= 1 and self.maximum >= self.start):
            raise InputError(
                f"rho grows by {self.factor} up to {self.maximum} from {self.start}; needs factor ≥ 1 "
                "and maximum ≥ start"
            )

    def at(self, k: int, pace: Pace) -> float:
        """ρ for outer iteration ``k`` (from 1)."""
        return min(self.maximum, self.start * math.pow(self.factor, k - 1))


Rho = float | Growth | Pull
"""A number, or a schedule; the string ``"auto"`` stands for ``Pull()``."""


def parse_rho(rho: Rho | str) -> Rho:
    """Turn ``"auto"`` into ``Pull()`` and check a number."""
    if rho == "auto":
        return Pull()
    if isinstance(rho, str):
        raise InputError(f"rho is {rho!r}; allowed are a number > 0, 'auto', Pull(…) or Growth(…)")
    if isinstance(rho, Growth | Pull):
        return rho
    return check_rho(rho)


def rho_at(rho: Rho, k: int, pace: Pace) -> float:
    """ρ for outer iteration ``k`` (from 1)."""
    return rho.at(k, pace) if isinstance(rho, Growth | Pull) else rho


def check_rho(rho: float) -> float:
    """Return a valid ρ, or say what is allowed."""
    if not 0 < rho < math.inf:
        raise InputError(f"rho is {rho}, allowed is a finite number > 0, or 'auto'")
    return float(rho)
