"""Surrogate Lagrangian relaxation (Gurevin et al., IJCAI 2021, "Enabling retrain-free deep neural
network pruning using surrogate Lagrangian relaxation", Algorithm 1, equations 2 to 11; step sizes
of Bragin et al. 2015).

Choices made where the source is unclear:
- The printed step-size formula lost its exponents; αₖ = 1 − 1/(M·k^p), p = 1 − 1/k^r is used.
- Step sizes. Bragin et al. 2015 (equation 20) ask that s·‖R‖, the length of Λ's step, shrinks by α from one
  multiplier update to the next one made. The rule here (``step_rule="consistent"``) is s' = αₖ s ‖R_last‖/‖R‖ at
  both updates of an outer iteration, with R_last the residual of the last update that was made. For (9) that update
  is (4), with residual Wᵏ − Zᵏ⁻¹. Equation (10) as printed has ‖Wᵏ⁻¹ − Zᵏ⁻¹‖ there: the ratio of residuals then
  counts twice in an outer iteration, and s can run away (``"printed"``, for reproduction).
- Condition (3) counts as met at k = 1, where s stays s₀. Zᵏ is kept whether or not condition (8) holds.
- s₀ = 0.01 belongs to the paper's ρ = 0.1. By pull s₀ is 0.3·ρ, with ρ of the first outer iteration: by the consistent
  rule s grows only as the residual shrinks, and from a smaller s₀ the multipliers grow too late.
- A zero norm leaves the step size as it is.
- The conditions use the ρ of the iteration that ends; ⟨Λ/ρ, R_prev⟩ and ‖R_prev‖ are kept as scalars
  from the iteration before. Where ρ is a number and falls, s falls with it, as Λ does. By pull the rules hold for
  s·Σ lr, because the outer iteration is one for the loss Σ lr·f (``splitting.py``).
- Condition (8) compares points of sets of equal size. Under a ramp Zᵏ has fewer weights than Zᵏ⁻¹, and is further
  from Wᵏ for that reason alone. So Zᵏ⁻¹ is first projected onto the present set: its largest weights, as many as Zᵏ
  keeps. Condition (3) needs no such step, because both of its sides have Zᵏ⁻¹.
- With a free support Z = W and Λ = 0 on T, so that R is zero on T and W outside it, in condition (3) and in all norms.
  Condition (8) judges the choice of T: both its sides have the values of Z on T that make the Lagrangian smallest at
  Λ', before Z = W and Λ = 0 take their place. They compare Tᵏ with the |Tᵏ| largest of Wᵏ on Tᵏ⁻¹.
- Π_S is exact, so Zᵏ minimises the Lagrangian over the present set, and (8) holds whenever Z (with a free support: T)
  changes. Only (3) can fail while Z still changes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from detprune.distributed import from_rank_zero
from detprune.errors import InputError, NonFiniteError
from detprune.methods.base import OuterIteration, Pace, Problem
from detprune.methods.residuals import (
    Residuals,
    against_old_target,
    measure,
    project_shifted,
    record,
    shift,
)
from detprune.methods.rho import Pull
from detprune.methods.splitting import Splitting
from detprune.methods.splitting_state import SplittingState
from detprune.values import check_number


@dataclass
class SLRState(SplittingState):
    """State of SLR: that of a splitting (k, ρ, Z, A), the step size s, and the earlier side of condition (3).

    Attributes:
        step_size: s, as it was last set.
        step_rho, step_strength: ρ and ``strength`` of the outer iteration in which s was last set.
        last_norm: ‖R‖ of the last multiplier update that was made; 0 before the first.
        previous_loss: fₖ₋₁.
        previous_inner: ⟨Λ/ρ, R_prev⟩.
        previous_norm: ‖R_prev‖.
    """

    step_size: float = 0.0
    step_rho: float = 0.0
    step_strength: float = 0.0
    last_norm: float = 0.0
    previous_loss: float = math.nan
    previous_inner: float = 0.0
    previous_norm: float = 0.0

    def upgraded(self, scalars: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert the scalars of an earlier version, which kept ⟨Λ, R_prev⟩ and did not keep ‖R_last‖."""
        if "last_norm" in scalars or "previous_inner" not in scalars:
            return scalars
        inner, last = scalars["previous_inner"] / scalars["rho"], scalars["previous_norm"]
        own = {"previous_inner": inner, "last_norm": last, "step_rho": scalars["rho"]}
        own["step_strength"] = 0.0
        return {**super().upgraded(scalars), **own}

    def step_now(self) -> float:
        """s for the present ρ: it falls where ρ or the pull falls; by pull it also follows the learning rates."""
        if not self.step_strength:
            return self.step_size * min(1.0, self.rho / self.step_rho)
        change = self.strength / self.step_strength
        return self.step_size * (self.rho / self.step_rho / change) * min(1.0, change)

    def rescale(self, factor: float) -> None:
        """Λ/ρ ← factor · Λ/ρ, also in the scalar ⟨Λ/ρ, R_prev⟩."""
        super().rescale(factor)
        self.previous_inner *= min(1.0, factor)


@dataclass(frozen=True)
class SLR(Splitting[SLRState]):
    """Surrogate Lagrangian relaxation: multipliers move only when the surrogate conditions hold.

    Attributes:
        rho: penalty coefficient ρ: a number, ``Growth(…)``, ``Pull(…)`` or ``"auto"``.
        ramp: share of the run over which the sparsity of Z grows to the budget's, as a cubic; 0: it has
            it from the start.
        free_support: Z follows W on its support, so that the penalty acts on the weights to be pruned alone.
        penalty: ``"gradient"``: ρ(W − A) joins the gradient, as in the paper; ``"proximal"``: after each step
            on the task's gradient alone W ← A + (W − A)·exp(−lr·ρ), which no momentum delays. Left out it is
            proximal where ρ is chosen by pull.
        step_size: s₀, the first step of the multipliers; left out, it is the paper's 0.01, and 0.3·ρ of the first
            outer iteration where ρ is chosen by pull.
        step_rule: ``"consistent"``: s·‖R‖ shrinks by αₖ from one multiplier update to the next;
            ``"printed"``: the paper's equations (5) and (10) to the letter.
        M, r: shape of the step-size rule αₖ; M > 1 and 0 < r < 1.
        max_step: upper bound of the step as a multiple of ρ. The paper has none, and by the printed rule the
            step can run away once the residual has become small; at 1 a step is at most that of ADMM.
    """

    step_size: float | None = None
    M: float = 300.0  # the paper's name
    r: float = 0.1
    max_step: float | None = None
    step_rule: Literal["consistent", "printed"] = "consistent"

    title: ClassVar[str] = "SLR"
    needs_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("SLR: M", self.M, "a number > 1", lambda m: m > 1)
        check_number("SLR: r", self.r, "a number between 0 and 1", lambda r: 0 < r < 1)
        if self.step_size is not None:
            check_number(
                "SLR: step_size", self.step_size, "a number > 0, or none", lambda step: step > 0
            )
        if self.step_rule not in ("consistent", "printed"):
            raise InputError(
                f"SLR: step_rule is {self.step_rule!r}; allowed are 'consistent' and 'printed'"
            )
        if self.max_step is not None:
            check_number(
                "SLR: max_step", self.max_step, "a multiple of rho > 0, or none", lambda m: m > 0
            )

    def alpha(self, k: int) -> float:
        """αₖ = 1 − 1/(M·k^p), p = 1 − 1/k^r."""
        p = 1 - 1 / math.pow(k, self.r)
        return 1 - 1 / (self.M * math.pow(k, p))

    def make_state(self) -> SLRState:
        """Return an empty state of k, ρ, Z, A and s."""
        return SLRState()

    def start(self, problem: Problem, pace: Pace) -> SLRState:
        """Z = Π_S(W), Λ = 0, s = s₀."""
        state = super().start(problem, pace)
        state.step_size, state.step_rho = self._first_step(state.rho), state.rho
        return state

    def end_outer_iteration(
        self, problem: Problem, state: SLRState, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Steps 1 and 2 of an outer iteration: conditions (3) and (8), each with its update of Λ."""
        if task_loss is None:
            raise TypeError("SLR compares task losses (needs_loss), but task_loss is None")
        if not math.isfinite(task_loss):
            raise NonFiniteError(
                f"the task loss is {task_loss}; Z, Λ and the step size are unchanged"
            )
        self.close(problem, state, pace)
        before = self._agreed(problem, measure(problem, state))
        k, rho, alpha = state.k + 1, state.rho, self.alpha(state.k + 1)

        previous = Residuals(rho * state.previous_inner, state.previous_norm, 0.0)
        condition_3 = k == 1 or (
            task_loss + before.penalty(rho) < state.previous_loss + previous.penalty(rho)
        )
        step = self._first_step(rho) if k == 1 else state.step_now()
        last_norm = state.last_norm
        if condition_3:
            reference = previous.norm if self.step_rule == "printed" else last_norm
            step = self._bounded(_scaled(step, alpha, reference, before.norm), rho)
            last_norm = before.norm or last_norm
        moved = step if condition_3 else 0.0
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            shift(weight, target, anchor, step=moved, rho=rho)
        share, old = self.share_of_sparsity(k, pace), self.share_of_sparsity(k - 1, pace)
        # ⟨Λ', R⟩ with Λ' = Λ + step·R
        middle = Residuals(before.inner + moved * before.norm**2, before.norm, before.weight_norm)
        if share != old:
            middle = self._agreed(problem, against_old_target(problem, state, share))
        change, minimum, after = project_shifted(problem, state, share)
        minimum, after = self._agreed(problem, minimum), self._agreed(problem, after)
        condition_8 = minimum.penalty(rho) < middle.penalty(rho)
        if condition_8:
            if self.step_rule == "consistent":
                step = _scaled(step, alpha, last_norm, after.norm)
            else:
                step = alpha * step if k == 1 else _scaled(step, alpha, previous.norm, after.norm)
            step = self._bounded(step, rho)
            last_norm = after.norm or last_norm
        last = step if condition_8 else 0.0
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            # the anchor holds V, so that Λ'/ρ = V − W; then Λ = Λ' + last·(W − Z), A = Z − Λ/ρ
            anchor.sub_(weight.detach()).add_(weight.detach() - target, alpha=last / rho)
            anchor.neg_().add_(target)

        entry = record(state, task_loss, before, after.norm)
        entry.target_change, entry.step_size = change, step
        entry.condition_3, entry.condition_8 = condition_3, condition_8
        state.step_size, state.step_rho, state.last_norm = step, rho, last_norm
        state.step_strength = state.strength
        state.previous_loss, state.previous_norm = task_loss, after.norm
        state.previous_inner = (after.inner + last * after.norm**2) / rho
        self.end(state)
        return entry

    def _first_step(self, rho: float) -> float:
        if self.step_size is not None:
            return self.step_size
        return 0.3 * rho if isinstance(self.rho, Pull) else 0.01

    def _bounded(self, step: float, rho: float) -> float:
        return step if self.max_step is None else min(step, self.max_step * rho)

    def _agreed(self, problem: Problem, own: Residuals) -> Residuals:
        """Rank 0's scalars, on all ranks: other hardware may round so that a condition comes out differently."""
        return Residuals(*from_rank_zero([own.inner, own.norm, own.weight_norm], problem.device))


def _scaled(step: float, alpha: float, previous_norm: float, present_norm: float) -> float:
    """αₖ · s · ‖R_prev‖ / ‖R‖, or s where a norm is zero."""
    if previous_norm == 0 or present_norm == 0:
        return step
    return alpha * step * previous_norm / present_norm
