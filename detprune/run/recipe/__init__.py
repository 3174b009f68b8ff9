"""Typed recipes: the YAML file of a run, checked key by key."""

from detprune.run.recipe.base import FolderName, Recipe, Section
from detprune.run.recipe.components import BudgetField, MethodField, SetField
from detprune.run.recipe.settings import Settings, assign, assignments, read_assignments
from detprune.run.recipe.validation import (
    dump_yaml,
    is_same,
    override,
    read_yaml,
    spelled_out,
    validate,
)

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
