"""Sparsity sets: how weights are grouped, and which groups may be nonzero."""

from detprune.sets.base import GroupSet, SparsitySet
from detprune.sets.n_m import NM
from detprune.sets.pattern import Pattern
from detprune.sets.structured import Block, Channel, Column, Filter
from detprune.sets.unstructured import Unstructured

SETS: dict[str, type[SparsitySet]] = {
    "unstructured": Unstructured,
    "n_m": NM,
    "filter": Filter,
    "channel": Channel,
    "column": Column,
    "block": Block,
    "pattern": Pattern,
}
"""Every set of single weights, by name."""

__all__ = [
    "NM",
    "SETS",
    "Block",
    "Channel",
    "Column",
    "Filter",
    "GroupSet",
    "Pattern",
    "SparsitySet",
    "Unstructured",
]
