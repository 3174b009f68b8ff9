"""Sensitivity of the layers: a scan of the loss that each layer's pruning costs, and the plan of least predicted loss
(the scan is that of Han et al. 2015, "Learning both weights and connections", figure 6).

Every layer is pruned alone to several sparsities, without training, and the task loss is measured on a few
images. The plan minimises the sum of the increases under the budget: for a price λ per kept weight, every
layer takes the sparsity where increase + λ · kept weights is least. λ is found by bisection. The plan is optimal where
increases are convex in the number of kept weights.

All layers together cost more than the sum of their single costs: a network can do without one residual block, but not
without all of them. So no layer keeps less than a quarter of the share that all keep together, and the prediction
serves to rank plans only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from detprune.errors import InputError
from detprune.layers import Layer
from detprune.projections import keep
from detprune.sets import SparsitySet

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998)
"""The sparsities that are tried on every layer."""

_FLOOR = 0.25  # least density of a layer, as a share of the density of all layers together
_ROUNDING = 1e-12
_PRICES = 200  # most halvings: the bracket of prices spans all of float64

Levels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """Result of a scan: the task loss with each layer pruned alone.

    Attributes:
        loss: task loss of the dense network.
        increases: name → increase of the loss at each of ``SPARSITIES``; never falling.
        numels: name → number of weights.
    """

    loss: float
    increases: Mapping[str, Levels]
    numels: Mapping[str, int]

    def predicted(self, sparsities: Mapping[str, float]) -> float:
        """Predicted loss: the dense loss plus the increases of all layers, linear between the sparsities tried."""
        return self.loss + sum(
            float(np.interp(sparsities[name], SPARSITIES, values))
            for name, values in self.increases.items()
        )

    def cheapest(self, sparsity: float) -> dict[str, float]:
        """The sparsities of least predicted loss that together reach this sparsity.

        Raises:
            InputError: more than the largest of ``SPARSITIES`` is asked for.
        """
        if sparsity > SPARSITIES[-1]:
            raise InputError(
                f"the sparsity is {sparsity:.4g}, but layers were tried up to {SPARSITIES[-1]} only; ask "
                f"for a compression of at most {1 / (1 - SPARSITIES[-1]):.0f}"
            )
        count = sum(1 - tried >= _FLOOR * (1 - sparsity) for tried in SPARSITIES)
        denser, sparser = dict.fromkeys(self.increases, 0.0), self._at_price(0.0, count)
        if self._density(sparser) > 1 - sparsity:
            denser, sparser = self._around(1 - sparsity, count)
        gap = self._density(denser) - self._density(sparser)
        share = (1 - sparsity - self._density(sparser)) / gap if gap else 0.0
        return {n: share * denser[n] + (1 - share) * sparser[n] for n in self.increases}

    def _around(self, density: float, count: int) -> tuple[dict[str, float], dict[str, float]]:
        """The plans at two neighbouring prices, one above and one below the density."""
        low, high = 0.0, 1.0
        while self._density(self._at_price(high, count)) > density + _ROUNDING:
            high *= 16
        for _ in range(_PRICES):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            if self._density(self._at_price(middle, count)) > density:
                low = middle
            else:
                high = middle
        return self._at_price(low, count), self._at_price(high, count)

    def _at_price(self, price: float, count: int) -> dict[str, float]:
        """The best of the first ``count`` sparsities for each layer; ``price`` is the loss for keeping all weights."""
        total = sum(self.numels.values())
        kept = 1 - np.array(SPARSITIES[:count])
        chosen = {}
        for name, values in self.increases.items():
            cost = values[:count] + price * kept * self.numels[name] / total
            chosen[name] = SPARSITIES[int(np.flatnonzero(cost == cost.min())[-1])]
        return chosen

    def _density(self, sparsities: Mapping[str, float]) -> float:
        kept = sum((1 - s) * self.numels[name] for name, s in sparsities.items())
        return kept / sum(self.numels.values())


@torch.no_grad()
def scan(
    layers: Sequence[Layer],
    sparsity_set: SparsitySet,
    loss: Callable[[], float],
    track: Callable[[Sequence[Layer]], Iterable[Layer]] = iter,
) -> Scan:
    """Prune each layer alone, measure, and put its weights back.

    Args:
        layers: the layers to be pruned.
        sparsity_set: the set, which must not fix its own sparsity.
        loss: measures the task loss of the model as it is.
        track: wraps the layers, to show progress.

    Raises:
        InputError: a set that fixes its own sparsity (n:m).
    """
    if sparsity_set.own_sparsity is not None:
        raise InputError(
            f"{sparsity_set!r} always has sparsity {sparsity_set.own_sparsity:g}: there is nothing to choose"
        )
    dense = loss()
    increases: dict[str, Levels] = {}
    for layer in track(layers):
        before = layer.weight.detach().clone()
        values = []
        for sparsity in SPARSITIES[1:]:
            layer.weight.copy_(keep(before, sparsity_set.mask(before, sparsity)))
            found = loss()
            values.append(found - dense if np.isfinite(found) else np.inf)
        layer.weight.copy_(before)
        increases[layer.name] = np.maximum.accumulate([0.0, *values])
    numels = {layer.name: layer.weight.numel() for layer in layers}
    return Scan(dense, increases, numels)
