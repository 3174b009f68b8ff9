"""The penalty coefficient ρ: a number, a growing number, or worked out from the pull that it should have.

The penalty alone shrinks W − A over one outer iteration by

    exp(−pull),   pull = ρ · Σ lr  (proximal),   ρ · Σ lr/(1 − momentum)  (through the gradient of SGD),

where the sum runs over the optimizer steps of the iteration. So the effect of a value of ρ depends on the learning
rate, which schedules change by orders of magnitude. ``Pull`` gives the effect instead of ρ: each of the
``steps_per_update`` steps of an outer iteration takes away the share 1 − exp(−pull/steps_per_update) of W − A,
whatever the learning rate is. ρ follows from the equation at the end of the outer iteration, when all its learning
rates are known, so that it does not depend on the learning rate of a single step.
"""

import math
from dataclasses import dataclass

from detprune.errors import InputError
from detprune.methods.base import Pace
from detprune.values import check_number


@dataclass(frozen=True)
class Pull:
    """ρ chosen by the pull that the penalty should have, under any learning rate; the pull grows geometrically.

    Per outer iteration the penalty closes the share 1 − exp(−pull) of the gap between W and the anchor A = Z − Λ/ρ.

    Attributes:
        start: pull of the first outer iteration; 0.3 closes about a quarter of the gap.
        end: pull of the last outer iteration; 3 closes 95 % of the gap.
    """

    start: float = 0.3
    end: float = 3.0

    def __post_init__(self) -> None:
        start = check_number("pull: start", self.start, "a number > 0", lambda start: start > 0)
        least = f"a number that is not below start, {start:g}"
        check_number("pull: end", self.end, least, lambda end: end >= start)

    def at(self, k: int, pace: Pace) -> float:
        """Pull of outer iteration ``k`` (from 1).

        Raises:
            InputError: the length of the run is not known.
        """
        if pace.steps_per_update is None or pace.updates is None:
            raise InputError(
                "rho by pull needs the length of the run: pass steps_per_update= (optimizer steps "
                "between two calls of update) and updates= (number of such calls) to Pruner, "
                "or give rho as a number, for example rho=0.1"
            )
        progress = min(1.0, (k - 1) / max(1, pace.updates - 1))
        return self.start * math.pow(self.end / self.start, progress)

    def per_step(self, k: int, pace: Pace) -> float:
        """The part of the pull of outer iteration ``k`` that each of its optimizer steps brings."""
        return self.at(k, pace) / (pace.steps_per_update or 1)


@dataclass(frozen=True)
class Growth:
    """ρ ← min(factor · ρ, maximum) after every outer iteration (Boyd et al. 2011, section 3.4.1).

    Attributes:
        start: ρ of the first outer iteration.
        factor: factor by which ρ grows.
        maximum: value at which ρ stops growing.
    """

    start: float = 0.1
    factor: float = 1.3
    maximum: float = math.inf

    def __post_init__(self) -> None:
        start = check_number("growth: start", self.start, "a number > 0", lambda start: start > 0)
        check_number(
            "growth: factor", self.factor, "a number, 1 or more", lambda factor: factor >= 1
        )
        least = f"a number that is not below start, {start:g}, or inf"
        check_number(
            "growth: maximum", self.maximum, least, lambda most: most >= start, finite=False
        )

    def at(self, k: int) -> float:
        """ρ of outer iteration ``k`` (from 1)."""
        return min(self.maximum, self.start * math.pow(self.factor, k - 1))


Rho = float | Growth | Pull
"""A number or a schedule of ρ; the string ``"auto"`` stands for ``Pull()``."""


def parse_rho(rho: Rho | str) -> Rho:
    """Turn ``"auto"`` into ``Pull()``, and check a number."""
    if isinstance(rho, str) and rho == "auto":
        return Pull()
    if isinstance(rho, Growth | Pull):
        return rho
    allowed = "a finite number > 0, 'auto', Pull(…) or Growth(…)"
    return check_number("rho", rho, allowed, lambda number: number > 0)
