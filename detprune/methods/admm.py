"""ADMM pruning (Zhang et al. 2018, "A systematic DNN weight pruning framework using ADMM"; Boyd et
al. 2011, chapter 3).

After outer iteration k: Z ← Π_S(W + Λ/ρ), Λ ← Λ + ρ(W − Z). The sources write the scaled dual
U = Λ/ρ; Λ is used here, so that nothing has to be rescaled when ρ changes.
"""

from dataclasses import dataclass

from detprune.methods.base import OuterIteration, Pace, Problem, State
from detprune.methods.scalars import as_floats, norm, root_sum_square
from detprune.methods.splitting import (
    Splitting,
    SplittingState,
    measure,
    project_shifted,
    record,
    shift,
)


@dataclass(frozen=True)
class ADMM(Splitting):
    """Alternating direction method of multipliers.

    Attributes:
        rho: penalty coefficient ρ: a number, ``Growth(…)``, ``Pull(…)`` or ``"auto"``.
        ramp: share of the run over which the sparsity of Z grows to the budget's, as a cubic; 0: it has
            it from the start.
        free_support: Z follows W on its support, so that the penalty acts on what is to go alone.
        penalty: ``"gradient"``: ρ(W − A) joins the gradient, as in the paper; ``"proximal"``: after each step
            on the task's gradient alone W ← A + (W − A)·exp(−lr·ρ), which no momentum delays. Left out it is
            proximal where ρ is chosen by pull.
    """

    def make_state(self) -> SplittingState:
        """k, ρ, Z and A."""
        return SplittingState()

    def end_outer_iteration(
        self, problem: Problem, state: State, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Z ← Π_S(V) with V = W + Λ/ρ; then Λ + ρ(W − Z) = ρ(V − Z), so A = Z − (ρ/ρ')(V − Z)."""
        if not isinstance(state, SplittingState):
            raise TypeError(f"expected a SplittingState, got {type(state).__name__}")
        before = measure(problem, state)
        next_rho = self.next_rho(state, pace)
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            shift(weight, target, anchor, step=0.0, rho=state.rho)
        change = project_shifted(problem, state, self.share_of_sparsity(state.k + 1, pace))
        residual_norms = []
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            residual_norms.append(norm(weight.detach() - target))
            anchor.sub_(target).mul_(-state.rho / next_rho).add_(target)
        state.k += 1
        entry = record(state, task_loss, before, root_sum_square(as_floats(residual_norms)))
        entry.target_change = change
        self.begin_outer_iteration(state, next_rho, pace)
        return entry
