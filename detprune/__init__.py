"""Constrained pruning of PyTorch models inside the training loops that people already use."""

from importlib.metadata import version

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.loading import load
from detprune.methods import (
    ADMM,
    DPF,
    SASADMM,
    SLR,
    GradualMagnitude,
    Growth,
    Magnitude,
    Method,
    OneShot,
    OuterIteration,
    Pull,
)
from detprune.pruner import Pruner
from detprune.sets import (
    NM,
    Block,
    Channel,
    Column,
    Filter,
    Pattern,
    SparsitySet,
    Unstructured,
)
from detprune.summary import LayerSummary, Summary

__version__ = version("detprune")

__all__ = [
    "ADMM",
    "DPF",
    "NM",
    "SASADMM",
    "SLR",
    "Block",
    "Budget",
    "Channel",
    "Column",
    "CoupledChannels",
    "DetpruneError",
    "Filter",
    "GradualMagnitude",
    "Growth",
    "InputError",
    "LayerSummary",
    "Magnitude",
    "Method",
    "NonFiniteError",
    "OneShot",
    "OuterIteration",
    "Pattern",
    "Pruner",
    "Pull",
    "SparsitySet",
    "Summary",
    "Unstructured",
    "load",
]
