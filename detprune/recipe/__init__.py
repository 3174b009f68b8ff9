"""Typed recipes."""

from detprune.recipe.base import (
    Recipe,
    Section,
    dump_yaml,
    is_same,
    override,
    read_yaml,
    spelled_out,
    validate,
)
from detprune.recipe.components import BudgetField, MethodField, SetField

__all__ = [
    "BudgetField",
    "MethodField",
    "Recipe",
    "Section",
    "SetField",
    "dump_yaml",
    "is_same",
    "override",
    "read_yaml",
    "spelled_out",
    "validate",
]
