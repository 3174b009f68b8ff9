"""The interface of pruning methods: a frozen object of hyperparameters, and one explicit state per training."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import TypeVar

from detprune.errors import InputError, NonFiniteError, listed
from detprune.methods.scalars import as_floats, norm
from detprune.sets import SparsitySet


@dataclass(frozen=True)
class Problem:
    """The pruned tensors, and the projection onto the set that they must lie in.

    Attributes:
        names: name of every pruned tensor.
        weights: W, the live parameters; methods change them in place only.
        sparsities: target sparsity of every tensor, from the budget.
        jointly: whether one count holds for all tensors together (scope ``"global"``).
    """

    names: Sequence[str]
    weights: Sequence[Tensor]
    sparsity_set: SparsitySet
    sparsities: Sequence[float]
    jointly: bool

    @property
    def device(self) -> torch.device:
        """Device of the first tensor; scalars are kept there."""
        return self.weights[0].device

    def masks(self, values: Sequence[Tensor], share: float = 1.0) -> list[Tensor]:
        """Supports of Π_S(values), boolean; a ``share`` below 1 multiplies every tensor's sparsity (a ramp)."""
        return self.sparsity_set.masks_at(values, self.sparsities, self.jointly, share)

    def check_weights(self) -> None:
        """Raise an error that names the weights that are not finite."""
        norms = as_floats([norm(weight.detach()) for weight in self.weights])
        self.raise_if_not_finite(norms, "the norm of the weight")

    def raise_if_not_finite(self, norms: Sequence[float], what: str) -> None:
        """Raise an error that names the tensors whose norm is NaN or infinite."""
        bad = [n for n, norm in zip(self.names, norms, strict=True) if not math.isfinite(norm)]
        if bad:
            raise NonFiniteError(
                f"{what} of {listed(bad)} is not finite: training has diverged. Nothing was "
                "changed; lower the learning rate or rho, or clip gradients, and start from a checkpoint"
            )


@dataclass(frozen=True)
class Rate:
    """Learning rate and momentum of one weight at the next optimizer step.

    Attributes:
        learning_rate: learning rate of the weight's group; schedules change it.
        highest: largest learning rate that the schedule announces in the group (``initial_lr``, ``max_lr``).
        momentum, dampening, nesterov: SGD's options; ``momentum`` is None for any other optimizer.
        started: whether SGD has a momentum buffer of this weight already.
        sign: −1 where the optimizer maximises, else 1.
    """

    learning_rate: float = 0.0
    highest: float = 0.0
    momentum: float | None = None
    dampening: float = 0.0
    nesterov: bool = False
    started: bool = False
    sign: float = 1.0


class OptimizerRates:
    """Reads the ``Rate`` of each weight from the optimizer, whose groups trainers make and schedules change."""

    def __init__(self, optimizer: Optimizer | None, weights: Sequence[Tensor]) -> None:
        self.optimizer, self.weights = optimizer, weights
        self._groups: list[int] = []
        self._seen: list[int] = []

    def now(self) -> list[Rate]:
        """One rate for each weight; a weight that no group holds follows the first group."""
        if self.optimizer is None:
            return [Rate()] * len(self.weights)
        groups = self.optimizer.param_groups
        seen = [len(group["params"]) for group in groups]
        if seen != self._seen:  # a trainer may have added groups
            held = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
            self._groups = [held.get(id(weight), 0) for weight in self.weights]
            self._seen = seen
        is_sgd = isinstance(self.optimizer, torch.optim.SGD)
        rates = [_rate(group, is_sgd) for group in groups]
        if not is_sgd:
            return [rates[index] for index in self._groups]
        state = self.optimizer.state
        return [
            replace(rates[index], started=state.get(w, {}).get("momentum_buffer") is not None)
            for index, w in zip(self._groups, self.weights, strict=True)
        ]


def _rate(group: dict[str, Any], is_sgd: bool) -> Rate:
    announced = [float(group[key]) for key in ("initial_lr", "max_lr") if key in group]
    return Rate(
        learning_rate=float(group.get("lr", 0.0)),
        highest=max(announced, default=0.0),
        momentum=float(group["momentum"]) if is_sgd else None,
        dampening=float(group["dampening"]) if is_sgd else 0.0,
        nesterov=bool(is_sgd and group["nesterov"]),
        sign=-1.0 if group.get("maximize") else 1.0,
    )


@dataclass(frozen=True)
class Pace:
    """The facts of the training that a method uses: learning rates, and the length of the run.

    Attributes:
        rates: learning rate and momentum of each pruned weight at the next step.
        steps_per_update: optimizer steps in one outer iteration; None: unknown.
        updates: outer iterations in the whole constrained training; None: unknown.
    """

    rates: Sequence[Rate]
    steps_per_update: int | None
    updates: int | None


@dataclass
class OuterIteration:
    """Log entry of one outer iteration; a field is None where the method has no such quantity.

    Attributes:
        k: number of the outer iteration, from 1.
        task_loss: fₖ.
        penalty: ⟨Λ, W − Z⟩ + ρ/2 ‖W − Z‖² at the end of the iteration, before Z and Λ change.
        residual_norm: ‖W − Z‖ with the new Z.
        relative_residual: ‖W − Z‖ / ‖W‖.
        target_change: ‖Z − Z_prev‖.
        step_size: SLR's step s after the iteration.
        rho: ρ (β in SAS-ADMM) during the iteration; by pull it is known only at the end.
        pull: the penalty alone would have shrunk W − A by exp(−pull) during the iteration; None where it cannot
            be worked out for the optimizer.
        condition_3, condition_8: whether SLR's surrogate optimality conditions held.
    """

    k: int
    task_loss: float | None
    penalty: float | None = None
    residual_norm: float | None = None
    relative_residual: float | None = None
    target_change: float | None = None
    step_size: float | None = None
    rho: float | None = None
    pull: float | None = None
    condition_3: bool | None = None
    condition_8: bool | None = None


TRANSIENT = {"saved": False}
"""Metadata of a state's field that is computed again after loading, and so is not saved."""


@dataclass
class State:
    """State of a method: scalars, and lists of tensors in the order of the pruned tensors.

    A method that needs more fields derives a dataclass from it. All fields are saved, except those with
    the metadata ``TRANSIENT``.
    """

    k: int = 0
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def scalars(cls) -> list[str]:
        """Names of the fields that are saved beside the tensors."""
        return [
            f.name for f in fields(cls) if f.name != "tensors" and f.metadata.get("saved", True)
        ]

    def state_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain dictionary of the scalars, and of name → tensor for each kind; the tensors are not copied."""
        scalars = {name: copy.copy(getattr(self, name)) for name in self.scalars()}
        tensors = {
            kind: dict(zip(names, values, strict=True)) for kind, values in self.tensors.items()
        }
        return {"scalars": scalars, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any], names: Sequence[str]) -> None:
        """Copy a saved state into this one, which the same method must have started."""
        saved = state["tensors"]
        if set(saved) != set(self.tensors):
            raise InputError(
                f"the saved pruner state holds {sorted(saved)}, but this method keeps "
                f"{sorted(self.tensors)}; use the method and options that it was saved with"
            )
        for kind, values in self.tensors.items():
            for name, value in zip(names, values, strict=True):
                if saved[kind][name].shape != value.shape:
                    raise InputError(
                        f"the saved {kind} of {name} has shape {tuple(saved[kind][name].shape)}, "
                        f"but the weight has {tuple(value.shape)}; use the model that it was saved with"
                    )
                if _kind_of(saved[kind][name]) != _kind_of(value):
                    raise InputError(
                        f"the saved {kind} of {name} is of {saved[kind][name].dtype}, but this method keeps "
                        f"{value.dtype}: the file is damaged or was converted; go back to an earlier checkpoint"
                    )
        for kind, values in self.tensors.items():
            for name, value in zip(names, values, strict=True):
                value.copy_(saved[kind][name])
        scalars = self.upgraded(state["scalars"])
        if lacking := [name for name in self.scalars() if name not in scalars]:
            raise InputError(
                f"the saved pruner state lacks {', '.join(lacking)}: another version of detprune saved it; "
                "continue with that version, or start constrained training again"
            )
        for name in self.scalars():
            setattr(self, name, copy.copy(scalars[name]))  # a list is changed in place

    def upgraded(self, scalars: Mapping[str, Any]) -> Mapping[str, Any]:
        """Saved scalars, completed where an earlier version of detprune saved fewer."""
        return scalars


def _kind_of(tensor: Tensor) -> str:
    """Kind of a tensor's dtype: a state may be loaded in another width, but not in another kind."""
    if tensor.is_floating_point():
        return "float"
    return "bool" if tensor.dtype == torch.bool else "integer"


S = TypeVar("S", bound=State, default=Any)
"""Type of a method's state; ``Method`` without it is a method with any state."""


class Method(ABC, Generic[S]):
    """Base of all methods, frozen dataclasses of hyperparameters: each function is a moment at which one may act."""

    title: ClassVar[str] = ""
    """Name of the method in reports; where it is empty, they show the registered name."""
    needs_loss: ClassVar[bool] = False
    """Whether ``end_outer_iteration`` needs the task loss fₖ."""
    extrapolates: ClassVar[bool] = False
    """Whether gradients are taken at ``extrapolated`` rather than at W."""
    replaces_optimizer: ClassVar[bool] = False
    """Whether the method steps the pruned tensors itself, hidden from the optimizer."""
    has_inner_loop: ClassVar[bool] = False
    """Whether ``is_due`` says when an outer iteration ends, rather than the caller."""
    needs_updates: ClassVar[bool] = False
    """Whether Z moves at the end of outer iterations alone, so that training without any follows a stale Z."""

    @property
    def needs_sgd(self) -> bool:
        """Whether the method has to know how the optimizer moves the weights, which is worked out for SGD alone."""
        return False

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """Refuse a set that does not go with the method; needs no network, so recipes are checked with it.

        Raises:
            InputError: the set does not go with the method, whatever the network is.
        """

    def unfinished(self, state: S, pace: Pace) -> str | None:
        """Say how far the method is in its schedule, if training should not end yet; None if it may end."""
        return None

    @abstractmethod
    def start(self, problem: Problem, pace: Pace) -> S:
        """Make the initial state from the current weights."""

    def before_step(self, problem: Problem, state: S, pace: Pace) -> None:
        """Change gradients, between the backward pass and the optimizer's step.

        It is not called for a step that the optimizer skips (a GradScaler found infinities).
        """

    def after_step(self, problem: Problem, state: S) -> None:
        """Change weights, after every optimizer step."""

    @abstractmethod
    def end_outer_iteration(
        self, problem: Problem, state: S, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Update Z, multipliers, step size and ρ; an error leaves the whole state unchanged."""

    def is_due(self, state: S) -> bool:
        """Whether the inner loop has ended; asked only where the method has one (``has_inner_loop``)."""
        return False

    def final_points(self, problem: Problem, state: S) -> Sequence[Tensor]:
        """The points that hard pruning projects: W, unless the method averages."""
        return problem.weights

    def extrapolated(self, state: S, index: int, weight: Tensor) -> Tensor:
        """The point at which the gradient of tensor ``index`` is taken, where the method ``extrapolates``."""
        return weight


def working_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of targets and multipliers: that of the weight, but at least float32."""
    return torch.promote_types(weight.dtype, torch.float32)


def like_weight(weight: Tensor) -> Tensor:
    """Return a new tensor of the weight's shape and memory format in ``working_dtype``."""
    return torch.empty_like(weight.detach(), dtype=working_dtype(weight))
