"""Pruning methods, one per file. A method object holds fixed hyperparameters; its ``State`` holds what changes."""

from detprune.methods.admm import ADMM
from detprune.methods.base import TRANSIENT, Method, OuterIteration, Pace, Problem, State
from detprune.methods.gradual import DPF, GradualMagnitude
from detprune.methods.magnitude import Magnitude, OneShot
from detprune.methods.rho import Growth, Pull
from detprune.methods.sas_admm import SASADMM
from detprune.methods.slr import SLR

METHODS: dict[str, type[Method]] = {
    "admm": ADMM,
    "slr": SLR,
    "sas_admm": SASADMM,
    "magnitude": Magnitude,
    "gradual_magnitude": GradualMagnitude,
    "dpf": DPF,
    "oneshot": OneShot,
}
"""Every method that recipes and the command line know, by name."""


def name_of(method: Method) -> str:
    """The registered name of a method; the name of its class where it is not registered."""
    by_type = {kind: name for name, kind in METHODS.items()}
    return by_type.get(type(method), type(method).__qualname__)


__all__ = [
    "ADMM",
    "DPF",
    "METHODS",
    "SASADMM",
    "SLR",
    "TRANSIENT",
    "GradualMagnitude",
    "Growth",
    "Magnitude",
    "Method",
    "OneShot",
    "OuterIteration",
    "Pace",
    "Problem",
    "Pull",
    "State",
    "name_of",
]
