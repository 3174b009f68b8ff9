"""Typed recipes."""

from detprune.recipe.base import (
    FolderName,
    Recipe,
    Section,
    dump_yaml,
    is_same,
    override,
    read_assignments,
    read_yaml,
    spelled_out,
    validate,
)
from detprune.recipe.components import BudgetField, MethodField, SetField
from detprune.recipe.settings import Settings, assign, assignments

__all__ = [
    "BudgetField",
    "FolderName",
    "MethodField",
    "Recipe",
    "Section",
    "SetField",
    "Settings",
    "assign",
    "assignments",
    "dump_yaml",
    "is_same",
    "override",
    "read_assignments",
    "read_yaml",
    "spelled_out",
    "validate",
]
