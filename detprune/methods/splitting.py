"""What ADMM and SLR share: the augmented Lagrangian

    L(W, Z, Λ) = f(W) + ⟨Λ, W − Z⟩ + ρ/2 ‖W − Z‖²,

and its gradient in W, Λ + ρ(W − Z) = ρ(W − A) with the anchor A = Z − Λ/ρ.

Choice made here: Z and A are the only tensors kept, and Λ = ρ(Z − A) is worked out where it is
needed, at the end of an outer iteration. Per step only A is read.

With ``free_support`` the copy follows W on its support T between two outer iterations. For a fixed T that
is the minimum of L over the values of Z (variable projection, Golub & Pereyra 1973): there Z = W, Λ = 0,
and what remains of the penalty, ⟨Λ, W⟩ + ρ/2 ‖W‖² outside T, pulls out what is to go and lets the rest
train. Without it ρ/2 ‖W − Z‖² also holds every weight that stays near where it was at the last update, as
if its learning rate were divided by the pull.

The penalty acts through the gradient, as in the sources, or as its proximal map after a step on f alone,
W ← A + (W − A)·exp(−lr·ρ), which is forward-backward splitting (Parikh & Boyd 2014, "Proximal algorithms",
section 4.2) with the flow of the quadratic in place of its implicit step, and what AdamW does with weight
decay. Through a momentum of m the gradient of the penalty cannot shrink W − A faster than by √m a step, and
from lr·ρ > (1 − √m)² on W swings past A; the proximal map does neither, and with any optimizer.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from detprune.errors import InputError
from detprune.methods.base import (
    Method,
    OuterIteration,
    Pace,
    Problem,
    State,
    like_weight,
)
from detprune.methods.penalty import add_pull, pull_towards
from detprune.methods.ramp import (
    check_ramp,
    check_ramp_of_set,
    refuse_fixed_sparsity,
    share_of_sparsity,
)
from detprune.methods.rho import Pull, Rho, parse_rho, rho_at
from detprune.methods.scalars import as_floats, inner, norm, relative, root_sum_square
from detprune.projections import keep
from detprune.sets import SparsitySet


@dataclass
class SplittingState(State):
    """k, ρ, and Z (``target``) and A (``anchor``) per tensor; with a free support also T (``kept``).

    ``pull`` is 1 − exp(−lr·ρ), the share of W − A that the proximal map takes away per step.
    """

    rho: float = 0.0
    pull: float = 0.0

    SCALARS: ClassVar[tuple[str, ...]] = ("k", "rho", "pull")

    @property
    def targets(self) -> list[Tensor]:
        """Z."""
        return self.tensors["target"]

    @property
    def anchors(self) -> list[Tensor]:
        """A = Z − Λ/ρ; during an update, the point V = W + Λ/ρ that is projected."""
        return self.tensors["anchor"]

    @property
    def supports(self) -> list[Tensor]:
        """T, boolean; empty unless the support is free."""
        return self.tensors.get("kept", [])

    def multipliers(self) -> Iterator[Tensor]:
        """Λ = ρ(Z − A), tensor by tensor."""
        for target, anchor in zip(self.targets, self.anchors, strict=True):
            yield (target - anchor).mul_(self.rho)


@dataclass(frozen=True)
class Residuals:
    """Scalars of R = W − Z over all tensors: ⟨Λ, R⟩, ‖R‖ and ‖W‖."""

    inner: float
    norm: float
    weight_norm: float

    def penalty(self, rho: float) -> float:
        """⟨Λ, R⟩ + ρ/2 ‖R‖²."""
        return self.inner + rho / 2 * self.norm**2


@dataclass(frozen=True)
class Splitting(Method):
    """Base of the methods that pull W towards a copy Z on the set."""

    rho: Rho | str = field(default=0.1, kw_only=True)
    ramp: float = field(default=0.0, kw_only=True)
    free_support: bool = field(default=False, kw_only=True)
    penalty: Literal["gradient", "proximal"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", parse_rho(self.rho))
        check_ramp(self.ramp, type(self).__name__)
        if self.penalty is None:
            penalty = "proximal" if isinstance(self.rho, Pull) else "gradient"
            object.__setattr__(self, "penalty", penalty)
        if self.penalty not in ("gradient", "proximal"):
            raise InputError(
                f"{type(self).__name__}: penalty is {self.penalty!r}; allowed are 'gradient', 'proximal', or "
                "none, which is 'proximal' where rho is chosen by pull"
            )

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """A ramp needs a sparsity that can grow."""
        if self.ramp:
            check_ramp_of_set(sparsity_set, f"{type(self).__name__}'s ramp")

    def unfinished(self, state: State, pace: Pace) -> str | None:
        """Outer iterations that are still to come, where ρ or the sparsity grow over all of them."""
        if pace.updates is None or state.k >= pace.updates:
            return None
        share = self.share_of_sparsity(state.k, pace)
        if share == 1 and not isinstance(self.rho, Pull):
            return None
        grown = f", in which Z has {share:.0%} of its sparsity" if share < 1 else ""
        return f"outer iteration {state.k} of {pace.updates}{grown}"

    def start(self, problem: Problem, pace: Pace) -> SplittingState:
        """Z = Π_S(W), Λ = 0."""
        if self.ramp:
            refuse_fixed_sparsity(problem, f"{type(self).__name__}'s ramp")
        state = self.make_state()
        state.tensors = {
            "target": [like_weight(weight) for weight in problem.weights],
            "anchor": [like_weight(weight) for weight in problem.weights],
        }
        weights = [weight.detach() for weight in problem.weights]
        masks = problem.masks(weights, self.share_of_sparsity(0, pace))
        if self.free_support:
            state.tensors["kept"] = [mask.clone() for mask in masks]
        for target, anchor, weight, mask in zip(
            state.targets, state.anchors, weights, masks, strict=True
        ):
            keep(anchor.copy_(weight), mask, out=target)
            anchor.copy_(target)
        self.begin_outer_iteration(state, self.rho_at(1, pace), pace)
        return state

    def before_step(self, problem: Problem, state: State) -> None:
        """grad ← grad + ρ(W − A), in place, unless the penalty is proximal."""
        if self.penalty == "gradient":
            state = _of(state)
            add_pull(problem.weights, state.anchors, state.rho)

    @torch.no_grad()
    def after_step(self, problem: Problem, state: State) -> None:
        """A ← W on a free support, so that nothing pulls there; W ← A + (W − A)·exp(−lr·ρ) where proximal."""
        state = _of(state)
        if self.free_support:
            follow(problem, state.supports, state.anchors)
        if self.penalty == "proximal":
            pull_towards(problem.weights, state.anchors, state.pull)

    def rho_at(self, k: int, pace: Pace) -> float:
        """ρ for outer iteration ``k``."""
        if isinstance(self.rho, str):
            raise TypeError("rho was parsed in __post_init__")
        if self.penalty == "proximal":  # past the optimizer, and its momentum
            pace = replace(pace, momentum=0.0)
        return rho_at(self.rho, k, pace)

    def begin_outer_iteration(self, state: SplittingState, rho: float, pace: Pace) -> None:
        """Take ρ for the steps to come."""
        state.rho, state.pull = rho, -math.expm1(-pace.learning_rate * rho)

    def share_of_sparsity(self, k: int, pace: Pace) -> float:
        """Share of the sparsity that Z has after outer iteration ``k``.

        Raises:
            InputError: a ramp in a run of unknown length.
        """
        if not self.ramp:
            return 1.0
        if pace.updates is None:
            raise InputError(
                f"{type(self).__name__}: ramp is a share of the run, whose length is not known; pass "
                "updates= (number of outer iterations) to Pruner, or ramp=0"
            )
        return share_of_sparsity(self.ramp, (k + 1) / pace.updates)

    def next_rho(self, state: SplittingState, pace: Pace) -> float:
        """ρ for the outer iteration after the one that ends; unchanged when the run is over."""
        if pace.updates is not None and state.k + 1 >= pace.updates:
            return state.rho
        return self.rho_at(state.k + 2, pace)

    @abstractmethod
    def make_state(self) -> SplittingState:
        """The method's own empty state."""


def _of(state: State) -> SplittingState:
    if not isinstance(state, SplittingState):
        raise TypeError(f"expected a SplittingState, got {type(state).__name__}")
    return state


def follow(problem: Problem, supports: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """values ← W on the supports, in place."""
    for weight, kept, value in zip(problem.weights, supports, values, strict=True):
        torch.where(kept, weight.detach(), value, out=value)


def measure(problem: Problem, state: SplittingState) -> Residuals:
    """Scalars of the current residual; an error that names the tensors that are not finite."""
    if state.supports:
        problem.check_weights()
        follow(problem, state.supports, state.targets)
    scalars = []
    for weight, target, multiplier in zip(
        problem.weights, state.targets, state.multipliers(), strict=True
    ):
        residual = weight.detach() - target
        scalars += [inner(multiplier, residual), norm(residual), norm(weight.detach())]
    values = as_floats(scalars)
    inners, norms, weight_norms = values[::3], values[1::3], values[2::3]
    problem.raise_if_not_finite(weight_norms, "the norm of the weight")
    problem.raise_if_not_finite(norms, "the norm of W − Z")
    problem.raise_if_not_finite(inners, "the inner product of Λ and W − Z")
    return Residuals(sum(inners), root_sum_square(norms), root_sum_square(weight_norms))


def project_shifted(problem: Problem, state: SplittingState, share: float) -> float:
    """Z ← Π_S(V) at a share of the sparsity, where the anchors hold V = W + Λ/ρ; returns ‖Z − Z_prev‖.

    With a free support V decides what is kept, and Z = V = W there.
    """
    masks = problem.masks(state.anchors, share)
    if state.supports:
        for kept, mask in zip(state.supports, masks, strict=True):
            kept.copy_(mask)
        follow(problem, masks, state.anchors)
    changes = []
    for target, shifted, mask in zip(state.targets, state.anchors, masks, strict=True):
        projected = keep(shifted, mask)
        changes.append(norm(projected - target))
        target.copy_(projected)
    return root_sum_square(as_floats(changes))


def shift(weight: Tensor, target: Tensor, anchor: Tensor, step: float, rho: float) -> None:
    """anchor ← V = W + Λ'/ρ with Λ' = Λ + step·(W − Z) and Λ = ρ(Z − anchor), in place."""
    residual = weight.detach() - target
    torch.sub(target, anchor, out=anchor)
    anchor.add_(weight.detach()).add_(residual, alpha=step / rho)


def record(
    state: SplittingState, task_loss: float | None, before: Residuals, residual_norm: float
) -> OuterIteration:
    """The log entry's common part."""
    return OuterIteration(
        k=state.k,
        task_loss=task_loss,
        penalty=before.penalty(state.rho),
        residual_norm=residual_norm,
        relative_residual=relative(residual_norm, before.weight_norm),
        rho=state.rho,
    )
