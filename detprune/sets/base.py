"""Base classes of sparsity sets: a set says how the weights of a tensor are grouped, and which groups may be nonzero.

The budget, not the set, decides how many are kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor, nn
from torch.optim import Optimizer

from detprune.errors import InputError
from detprune.projections import keep, largest, largest_of_each
from detprune.values import check_number

if TYPE_CHECKING:
    from detprune.budgets import Budget


class SparsitySet(ABC):
    """Base of all sparsity sets S; immutable and without tensors of a model.

    The projection is the Euclidean one, Π_S(V) = argmin ‖Z − V‖ over Z ∈ S: it keeps the groups with the
    largest l2 norm, and sets all others to zero. The count kept is exact, ties go to the lowest index.
    """

    @property
    def own_sparsity(self) -> float | None:
        """Share of zeros that the structure itself fixes (n:m); None where the budget decides."""
        return None

    def problem_with(self, shape: Size) -> str | None:
        """Say why a weight of this shape cannot lie in the set; None if it can."""
        return (
            None if len(shape) >= 2 else f"has {len(shape)} dimension(s), the set needs 2 or more"
        )

    def problem_in(self, module: nn.Module) -> str | None:
        """Say why the weight of a module cannot lie in the set, whatever its shape; None if it can."""
        return None

    def for_network(
        self, model: nn.Module, budget: "Budget", optimizer: Optimizer | None
    ) -> "SparsitySet":
        """The set for the weights of one network: this object, unless the set depends on the network."""
        return self

    @abstractmethod
    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Boolean supports of tensors that are ranked together and share one count."""

    def mask(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Support of the projection.

        Args:
            weight: (out, in, …), any floating dtype and memory format; it does not change.
            sparsity: share of groups set to zero, in [0, 1); may be left out where the set fixes it.

        Returns:
            Boolean, of the weight's shape, True where a weight is kept.

        Raises:
            InputError: a sparsity outside [0, 1), or a shape that the set cannot hold.
        """
        return self.masks([weight], [self.check_sparsity(sparsity)], jointly=False)[0]

    def project(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Nearest point of the set, in the weight's dtype and memory format; see ``mask``."""
        return keep(weight, self.mask(weight, sparsity))

    def masks(
        self, weights: Sequence[Tensor], sparsities: Sequence[float], jointly: bool
    ) -> list[Tensor]:
        """Supports of several tensors, each for its own sparsity, or ranked ``jointly``.

        Jointly, one count holds for all tensors together: the sum of the counts that the separate
        sparsities would keep.
        """
        for weight in weights:
            problem = self.problem_with(weight.shape)
            if problem is not None:
                raise InputError(f"{self!r}: a weight of shape {tuple(weight.shape)} {problem}")
        if jointly:
            return self.supports(weights, sparsities)
        return self.separate_supports(weights, sparsities)

    def masks_at(
        self, weights: Sequence[Tensor], sparsities: Sequence[float], jointly: bool, share: float
    ) -> list[Tensor]:
        """``masks`` with every sparsity times ``share``; a ramp grows the sparsity in this way."""
        return self.masks(weights, [share * sparsity for sparsity in sparsities], jointly)

    def separate_supports(
        self, weights: Sequence[Tensor], sparsities: Sequence[float]
    ) -> list[Tensor]:
        """Boolean supports of tensors that are ranked each by itself."""
        return [
            self.supports([weight], [sparsity])[0]
            for weight, sparsity in zip(weights, sparsities, strict=True)
        ]

    def check_sparsity(self, sparsity: float | None) -> float:
        """Return the sparsity to use; raise an error with the allowed values if it is not among them."""
        if sparsity is None:
            if self.own_sparsity is None:
                raise InputError(f"{self!r} needs a sparsity in [0, 1), for example sparsity=0.9")
            return self.own_sparsity
        allowed = "0 ≤ sparsity < 1 (0.9 sets 90 % to zero)"
        return check_number("sparsity", sparsity, allowed, lambda share: 0 <= share < 1)


class GroupSet(SparsitySet):
    """A set S that partitions the weights of a tensor into groups: at most l groups are nonzero.

    The projection keeps the l groups of largest l2 norm, ties to the lowest index, with
    l = max(1, round((1 − sparsity) · groups)).
    """

    @abstractmethod
    def scores(self, weight: Tensor) -> Tensor:
        """Return one number per group, by whose magnitude groups are ranked; of any shape."""

    @abstractmethod
    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """Turn the boolean choice of groups into the boolean support, of the weight's shape."""

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Keep as many groups as the sum over the tensors of l = max(1, round((1 − sparsity) · groups))."""
        scores = [self.scores(weight) for weight in weights]
        count = sum(_counts(scores, sparsities))
        # weights of different dtypes are ranked in the widest one, since widening is exact
        dtype = reduce(torch.promote_types, (score.dtype for score in scores))
        chosen = largest([score.to(dtype) for score in scores], count)
        return [self.spread(c, weight) for c, weight in zip(chosen, weights, strict=True)]

    def separate_supports(
        self, weights: Sequence[Tensor], sparsities: Sequence[float]
    ) -> list[Tensor]:
        """Keep l groups per tensor; on an accelerator one sort ranks all tensors."""
        if not weights or weights[0].device.type == "cpu":
            return super().separate_supports(weights, sparsities)
        scores = [self.scores(weight) for weight in weights]
        chosen = largest_of_each(scores, _counts(scores, sparsities))
        return [self.spread(c, weight) for c, weight in zip(chosen, weights, strict=True)]


def _counts(scores: Sequence[Tensor], sparsities: Sequence[float]) -> list[int]:
    """Number of groups to keep of each tensor."""
    return [
        max(1, round((1 - sparsity) * score.numel()))
        for score, sparsity in zip(scores, sparsities, strict=True)
    ]
