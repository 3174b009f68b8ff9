"""Unstructured sparsity: every weight is a group of its own."""

from dataclasses import dataclass

from torch import Tensor

from detprune.sets.base import GroupSet


@dataclass(frozen=True)
class Unstructured(GroupSet):
    """S = {Z : card(Z) ≤ l}: the l weights of largest magnitude are kept."""

    def scores(self, weight: Tensor) -> Tensor:
        """The weights themselves; their magnitude ranks them."""
        return weight.detach()

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """One group is one weight."""
        return groups
