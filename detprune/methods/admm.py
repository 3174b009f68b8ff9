"""ADMM pruning (Zhang et al. 2018, "A systematic DNN weight pruning framework using ADMM"; Boyd et
al. 2011, chapter 3).

After outer iteration k: Z ← Π_S(W + Λ/ρ), Λ ← Λ + ρ(W − Z). The sources write the scaled dual
U = Λ/ρ; what becomes of both where ρ changes is written in ``splitting.py``.
"""

from dataclasses import dataclass
from typing import ClassVar

from detprune.methods.base import OuterIteration, Pace, Problem
from detprune.methods.residuals import measure, project_shifted, record, shift
from detprune.methods.splitting import Splitting
from detprune.methods.splitting_state import SplittingState


@dataclass(frozen=True)
class ADMM(Splitting[SplittingState]):
    """Alternating direction method of multipliers.

    Attributes:
        rho: penalty coefficient ρ: a number, ``Growth(…)``, ``Pull(…)`` or ``"auto"``.
        ramp: share of the run over which the sparsity of Z grows to the budget's, as a cubic; 0: it has
            it from the start.
        free_support: Z follows W on its support, so that the penalty acts on the weights to be pruned alone.
        penalty: ``"gradient"``: ρ(W − A) joins the gradient, as in the paper; ``"proximal"``: after each step
            on the task's gradient alone W ← A + (W − A)·exp(−lr·ρ), which no momentum delays. Left out it is
            proximal where ρ is chosen by pull.
    """

    title: ClassVar[str] = "ADMM"

    def make_state(self) -> SplittingState:
        """Return an empty state of k, ρ, Z and A."""
        return SplittingState()

    def end_outer_iteration(
        self, problem: Problem, state: SplittingState, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Z ← Π_S(V) with V = W + Λ/ρ; then Λ + ρ(W − Z) = ρ(V − Z), so A = Z − (V − Z)."""
        self.close(problem, state, pace)
        before = measure(problem, state)
        for weight, target, anchor in zip(
            problem.weights, state.targets, state.anchors, strict=True
        ):
            shift(weight, target, anchor, step=0.0, rho=state.rho)
        change, _, after = project_shifted(
            problem, state, self.share_of_sparsity(state.k + 1, pace)
        )
        for target, anchor in zip(state.targets, state.anchors, strict=True):
            anchor.sub_(target).neg_().add_(target)
        entry = record(state, task_loss, before, after.norm)
        entry.target_change = change
        self.end(state)
        return entry
