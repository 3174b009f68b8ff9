"""Pure functions that select the weights or groups that a projection keeps; the sparsity sets are built on them."""

from detprune.projections.groups import (
    best_patterns,
    block_norms,
    expand_blocks,
    n_of_m_mask,
    slice_norms,
)
from detprune.projections.selection import empty, keep, largest, tree_sum, zero_outside
from detprune.projections.together import largest_of_each

__all__ = [
    "best_patterns",
    "block_norms",
    "empty",
    "expand_blocks",
    "keep",
    "largest",
    "largest_of_each",
    "n_of_m_mask",
    "slice_norms",
    "tree_sum",
    "zero_outside",
]
