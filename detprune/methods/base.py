"""What a pruning method is to the pruner: hyperparameters that never change, and one explicit state."""

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

from detprune.errors import InputError, NonFiniteError
from detprune.methods.scalars import as_floats, norm
from detprune.sets import SparsitySet


@dataclass(frozen=True)
class Problem:
    """The pruned tensors, and the projection onto the set that they must lie in.

    Attributes:
        names: name of every pruned tensor.
        weights: W, the live parameters; methods change them in place only.
        sparsities: sparsity of every tensor.
        jointly: whether one count holds for all tensors together (scope ``"global"``).
    """

    names: Sequence[str]
    weights: Sequence[Tensor]
    sparsity_set: SparsitySet
    sparsities: Sequence[float]
    jointly: bool

    @property
    def device(self) -> torch.device:
        """Device of the first tensor, where scalars are kept."""
        return self.weights[0].device

    def masks(self, values: Sequence[Tensor], share: float = 1.0) -> list[Tensor]:
        """Supports of Π_S(values); with a ``share``, at that part of every tensor's sparsity."""
        return self.sparsity_set.masks_at(values, self.sparsities, self.jointly, share)

    def check_weights(self) -> None:
        """Raise an error that names the weights that are not finite."""
        norms = as_floats([norm(weight.detach()) for weight in self.weights])
        self.raise_if_not_finite(norms, "the norm of the weight")

    def raise_if_not_finite(self, norms: Sequence[float], what: str) -> None:
        """Raise an error that names the tensors whose norm is NaN or infinite."""
        bad = [n for n, norm in zip(self.names, norms, strict=True) if not math.isfinite(norm)]
        if bad:
            some = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise NonFiniteError(
                f"{what} of {some} is not finite: training has diverged. Nothing was "
                "changed; lower the learning rate or rho, or clip gradients, and start from a checkpoint"
            )


@dataclass(frozen=True)
class Rate:
    """How the optimizer moves one weight at the step that comes.

    Attributes:
        learning_rate: of the weight's group; schedules change it.
        highest: the largest learning rate that the schedule has announced (``initial_lr``, ``max_lr``).
        momentum, dampening, nesterov: SGD's; ``momentum`` is None for another optimizer.
        started: whether SGD holds a momentum of this weight already.
        sign: −1 where the optimizer maximises.
    """

    learning_rate: float = 0.0
    highest: float = 0.0
    momentum: float | None = None
    dampening: float = 0.0
    nesterov: bool = False
    started: bool = False
    sign: float = 1.0


class OptimizerRates:
    """Reads the rates of some weights off an optimizer: trainers give groups, and rates, of their own."""

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
        if seen != self._seen:  # groups may be added
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
    """How training runs, as far as a method depends on it.

    Attributes:
        rates: how the optimizer moves each pruned weight, now.
        steps_per_update: optimizer steps in one outer iteration.
        updates: outer iterations in the whole constrained training.
    """

    rates: Sequence[Rate]
    steps_per_update: int | None
    updates: int | None


@dataclass
class OuterIteration:
    """What an outer iteration did; None where a method has no such quantity.

    Attributes:
        k: number of the outer iteration, from 1.
        task_loss: fₖ.
        penalty: what the Lagrangian adds to f, at the end of the iteration, before Z and Λ change.
        residual_norm: ‖W − Z‖ with the new Z.
        relative_residual: ‖W − Z‖ / ‖W‖.
        target_change: ‖Z − Z_prev‖.
        step_size: s after the iteration.
        rho: ρ (β in SAS-ADMM) during the iteration; by pull it is known at its end.
        pull: the penalty alone would have shrunk W − A by exp(−pull) during the iteration; None where the
            optimizer's part in it is not known.
        condition_3, condition_8: SLR's surrogate optimality conditions.
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
"""Metadata of a field of a state that is worked out anew, and so is not saved."""


@dataclass
class State:
    """What evolves: scalars, and lists of tensors that run parallel to the pruned tensors.

    A method that needs more derives a dataclass. All its fields are saved, but those with the
    metadata ``TRANSIENT``.
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
        """Plain dictionary of scalars and of name → tensor; the tensors are not copied."""
        scalars = {name: copy.copy(getattr(self, name)) for name in self.scalars()}
        tensors = {
            kind: dict(zip(names, values, strict=True)) for kind, values in self.tensors.items()
        }
        return {"scalars": scalars, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any], names: Sequence[str]) -> None:
        """Copy a saved state in; ``self`` must have been started by the same method."""
        saved = state["tensors"]
        if set(saved) != set(self.tensors):
            raise InputError(
                f"the saved pruner state holds {sorted(saved)}, this method keeps "
                f"{sorted(self.tensors)}; use the method and options that it was saved with"
            )
        for kind, values in self.tensors.items():
            for name, value in zip(names, values, strict=True):
                if saved[kind][name].shape != value.shape:
                    raise InputError(
                        f"the saved {kind} of {name} has shape {tuple(saved[kind][name].shape)}, "
                        f"the weight has {tuple(value.shape)}; is this another model?"
                    )
                if _kind_of(saved[kind][name]) != _kind_of(value):
                    raise InputError(
                        f"the saved {kind} of {name} is of {saved[kind][name].dtype}, this method keeps "
                        f"{value.dtype}: it is damaged or was converted; go back to an earlier checkpoint"
                    )
        for kind, values in self.tensors.items():
            for name, value in zip(names, values, strict=True):
                value.copy_(saved[kind][name])
        scalars = self.upgraded(state["scalars"])
        if lacking := [name for name in self.scalars() if name not in scalars]:
            raise InputError(
                f"the saved pruner state lacks {', '.join(lacking)}: another version of detprune saved it; go "
                "on with that version, or begin constrained training again"
            )
        for name in self.scalars():
            setattr(self, name, copy.copy(scalars[name]))  # a list is changed in place

    def upgraded(self, scalars: Mapping[str, Any]) -> Mapping[str, Any]:
        """Saved scalars, with what an earlier version did not keep filled in where that can be done."""
        return scalars


def _kind_of(tensor: Tensor) -> str:
    """What of its dtype does not go over into another: the width does."""
    if tensor.is_floating_point():
        return "float"
    return "bool" if tensor.dtype == torch.bool else "integer"


S = TypeVar("S", bound=State, default=Any)
"""The state of a method; ``Method`` alone is a method of any state."""


class Method(ABC, Generic[S]):
    """Base of all methods: the four moments at which a method may act on its state.

    A leaf is a frozen dataclass of hyperparameters.
    """

    title: ClassVar[str] = ""
    """What people call the method; reports fall back on its registered name."""
    needs_loss: ClassVar[bool] = False
    """Whether ``end_outer_iteration`` cannot do without fₖ."""
    extrapolates: ClassVar[bool] = False
    """Whether gradients are to be taken at ``extrapolated`` rather than at W."""
    replaces_optimizer: ClassVar[bool] = False
    """Whether the method moves the pruned tensors itself: the optimizer does not see their gradients."""
    has_inner_loop: ClassVar[bool] = False
    """Whether ``is_due`` says when an outer iteration ends, rather than the caller."""

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """Refuse a set that does not go with the method, before there are weights.

        Raises:
            InputError: what ``start`` would raise for every network.
        """

    def unfinished(self, state: S, pace: Pace) -> str | None:
        """Say what of its schedule the method has still to do, if training ended now; None if nothing."""
        return None

    @abstractmethod
    def start(self, problem: Problem, pace: Pace) -> S:
        """Make the initial state from the current weights."""

    def before_step(self, problem: Problem, state: S, pace: Pace) -> None:
        """Change gradients, after every backward and before the optimizer reads them.

        Not called for a step that the optimizer skips (a GradScaler found infinities).
        """

    def after_step(self, problem: Problem, state: S) -> None:
        """Change weights, after every optimizer step."""

    @abstractmethod
    def end_outer_iteration(
        self, problem: Problem, state: S, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Update Z, multipliers, step size and ρ; all of the state or, on an error, nothing."""

    def is_due(self, state: S) -> bool:
        """Whether a method with an inner loop of its own has come to the end of it."""
        return False

    def final_points(self, problem: Problem, state: S) -> Sequence[Tensor]:
        """The points that hard pruning projects; W unless a method averages."""
        return problem.weights

    def extrapolated(self, state: S, index: int, weight: Tensor) -> Tensor:
        """The point at which tensor ``index`` takes its gradient."""
        return weight


def working_dtype(weight: Tensor) -> torch.dtype:
    """float32 or wider: half-precision weights keep their targets and multipliers in float32."""
    return torch.promote_types(weight.dtype, torch.float32)


def like_weight(weight: Tensor) -> Tensor:
    """A new tensor of the weight's shape and memory format in ``working_dtype``."""
    return torch.empty_like(weight.detach(), dtype=working_dtype(weight))
