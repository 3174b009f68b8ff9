"""Unstructured sparsity: every weight is a group of its own."""

from dataclasses import dataclass

from torch import Tensor

from detprune.sets.base import GroupSet


@dataclass(frozen=True)
class Unstructured(GroupSet):
    """Single weights: S = {Z : card(Z) ≤ l}, at most l weights are nonzero.

    The projection keeps the l weights of largest magnitude, ties to the lowest index. Source: Zhang et al. 2018.
    """

    def scores(self, weight: Tensor) -> Tensor:
        """The weights themselves."""
        return weight.detach()

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """The choice itself, for a group is one weight."""
        return groups
