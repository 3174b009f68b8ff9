"""Surrogate Lagrangian relaxation (Gurevin et al., IJCAI 2021, "Enabling retrain-free deep neural
network pruning using surrogate Lagrangian relaxation", Algorithm 1, equations 2 to 11; step sizes
of Bragin et al. 2015).

Choices made where the source is unclear:
- The printed step-size formula lost its exponents; αₖ = 1 − 1/(M·k^p), p = 1 − 1/k^r is used.
- Condition (3) counts as met at k = 1, where no previous residual exists and s stays s₀; condition
  (8) at k = 1 scales s by αₖ without the ratio of norms.
- Zᵏ is kept whether or not condition (8) holds.
- s₀ = 0.01 belongs to ρ = 0.1 and to residuals that shrink slowly. By the rule s grows as ‖W − Z‖ shrinks,
  and a pull shrinks it tenfold in a few iterations: from 0.01 the multipliers soon move faster than W
  can follow and training diverges (seen on digits). With ρ by pull s₀ is 0.03·ρ.
- A zero norm leaves the step size as it is.
- The conditions use the ρ of the iteration that ends; ⟨Λ, R_prev⟩ and ‖R_prev‖ are kept as scalars
  from the iteration before.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from detprune.distributed import from_rank_zero
from detprune.errors import InputError, NonFiniteError
from detprune.methods.base import OuterIteration, Pace, Problem, State
from detprune.methods.rho import Pull
from detprune.methods.scalars import as_floats, inner, norm, root_sum_square
from detprune.methods.splitting import (
    Residuals,
    Splitting,
    SplittingState,
    measure,
    project_shifted,
    record,
    shift,
)


@dataclass
class SLRState(SplittingState):
    """Beside Z, A and ρ: s, and what condition (3) compares with."""

    step_size: float = 0.0
    previous_loss: float = math.nan
    previous_inner: float = 0.0
    previous_norm: float = 0.0

    SCALARS: ClassVar[tuple[str, ...]] = (
        *SplittingState.SCALARS,
        "step_size",
        "previous_loss",
        "previous_inner",
        "previous_norm",
    )


@dataclass(frozen=True)
class SLR(Splitting):
    """Surrogate Lagrangian relaxation: multipliers move only when the surrogate conditions hold.

    Attributes:
        rho: penalty coefficient ρ: a number, ``Growth(…)``, ``Pull(…)`` or ``"auto"``.
        ramp: share of the run over which the sparsity of Z grows to the budget's, as a cubic; 0: it has
            it from the start.
        free_support: Z follows W on its support, so that the penalty acts on what is to go alone.
        penalty: ``"gradient"``: ρ(W − A) joins the gradient, as in the paper; ``"proximal"``: after each step
            on the task's gradient alone W ← A + (W − A)·exp(−lr·ρ), which no momentum delays. Left out it is
            proximal where ρ is chosen by pull.
        step_size: s₀, the first step of the multipliers; left out, it is the paper's 0.01, and 0.03·ρ
            of the first outer iteration where ρ is chosen by pull.
        M, r: shape of the step-size rule αₖ; M > 1 and 0 < r < 1.
        max_step: upper bound of the step as a multiple of ρ. The paper has none, and without one its
            rule, in which the ratio of residual norms counts twice per outer iteration, can run away
            once the residual has become small; at 1 a step is at most that of ADMM.
    """

    step_size: float | None = None
    M: float = 300.0  # the paper's name
    r: float = 0.1
    max_step: float | None = None

    needs_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not ((self.step_size is None or self.step_size > 0) and self.M > 1 and 0 < self.r < 1):
            raise InputError(
                f"SLR: step_size is {self.step_size}, M is {self.M}, r is {self.r}; "
                "allowed are step_size > 0, M > 1, 0 < r < 1"
            )
        if self.max_step is not None and not self.max_step > 0:
            raise InputError(
                f"SLR: max_step is {self.max_step}; allowed is a multiple of rho > 0, or none"
            )

    def alpha(self, k: int) -> float:
        """αₖ = 1 − 1/(M·k^p), p = 1 − 1/k^r."""
        p = 1 - 1 / math.pow(k, self.r)
        return 1 - 1 / (self.M * math.pow(k, p))

    def make_state(self) -> SLRState:
        """Beside k, ρ, Z and A: s, and what condition (3) compares with."""
        return SLRState()

    def start(self, problem: Problem, pace: Pace) -> SLRState:
        """Z = Π_S(W), Λ = 0, s = s₀."""
        state = super().start(problem, pace)
        if not isinstance(state, SLRState):
            raise TypeError(f"expected an SLRState, got {type(state).__name__}")
        if self.step_size is not None:
            state.step_size = self.step_size
        else:
            state.step_size = 0.03 * state.rho if isinstance(self.rho, Pull) else 0.01
        return state

    def end_outer_iteration(
        self, problem: Problem, state: State, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Steps 1 and 2 of an outer iteration."""
        if not isinstance(state, SLRState) or task_loss is None:
            raise TypeError(f"SLR needs an SLRState and a loss, got {state!r}, {task_loss!r}")
        if not math.isfinite(task_loss):
            raise NonFiniteError(
                f"the task loss is {task_loss}; Z, Λ and the step size are unchanged"
            )
        before = self._agreed(problem, measure(problem, state))
        next_rho = self.next_rho(state, pace)
        k, rho, alpha = state.k + 1, state.rho, self.alpha(state.k + 1)

        previous = Residuals(state.previous_inner, state.previous_norm, 0.0)
        condition_3 = k == 1 or (
            task_loss + before.penalty(rho) < state.previous_loss + previous.penalty(rho)
        )
        step = state.step_size
        if condition_3 and k > 1:
            step = self._bounded(_scaled(step, alpha, previous.norm, before.norm), rho)
        moved = step if condition_3 else 0.0
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            shift(weight, target, anchor, step=moved, rho=rho)
        change = project_shifted(problem, state, self.share_of_sparsity(k, pace))

        after = self._agreed(problem, _after_projection(problem, state))
        # ⟨Λ', R⟩ with Λ' = Λ + step·R
        middle = Residuals(before.inner + moved * before.norm**2, before.norm, before.weight_norm)
        condition_8 = after.penalty(rho) < middle.penalty(rho)
        if condition_8:
            step = alpha * step if k == 1 else _scaled(step, alpha, previous.norm, after.norm)
            step = self._bounded(step, rho)
        last = step if condition_8 else 0.0
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            # the anchor holds V, so that Λ' = ρ(V − W); then Λ = Λ' + last·(W − Z), A = Z − Λ/ρ'
            multiplier = anchor.sub_(weight.detach()).mul_(rho)
            multiplier.add_(weight.detach() - target, alpha=last)
            anchor.mul_(-1 / next_rho).add_(target)

        state.k = k
        state.step_size = step
        state.previous_loss = task_loss
        state.previous_norm = after.norm
        state.previous_inner = after.inner + last * after.norm**2
        entry = record(state, task_loss, before, after.norm)
        entry.target_change, entry.step_size = change, step
        entry.condition_3, entry.condition_8 = condition_3, condition_8
        self.begin_outer_iteration(state, next_rho, pace)
        return entry

    def _bounded(self, step: float, rho: float) -> float:
        return step if self.max_step is None else min(step, self.max_step * rho)

    def _agreed(self, problem: Problem, own: Residuals) -> Residuals:
        """Rank 0's scalars: on other hardware a rank might round a condition the other way."""
        return Residuals(*from_rank_zero([own.inner, own.norm, own.weight_norm], problem.device))


def _scaled(step: float, alpha: float, previous_norm: float, present_norm: float) -> float:
    """αₖ · s · ‖R_prev‖ / ‖R‖, or s where a norm is zero."""
    if previous_norm == 0 or present_norm == 0:
        return step
    return alpha * step * previous_norm / present_norm


def _after_projection(problem: Problem, state: SLRState) -> Residuals:
    """Scalars of R₂ = W − Zᵏ against Λ' = ρ(V − W), with V in the anchors."""
    scalars = []
    for weight, target, shifted in zip(problem.weights, state.targets, state.anchors, strict=True):
        residual = weight.detach() - target
        scalars += [inner((shifted - weight.detach()).mul_(state.rho), residual), norm(residual)]
    values = as_floats(scalars)
    return Residuals(sum(values[::2]), root_sum_square(values[1::2]), 0.0)
