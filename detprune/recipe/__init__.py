"""Typed recipes."""

from detprune.recipe.base import Recipe, Section, dump_yaml, override, read_yaml, validate
from detprune.recipe.components import BudgetField, MethodField, SetField

__all__ = [
    "BudgetField",
    "MethodField",
    "Recipe",
    "Section",
    "SetField",
    "dump_yaml",
    "override",
    "read_yaml",
    "validate",
]
