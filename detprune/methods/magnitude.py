"""Two baselines: one-shot magnitude pruning, and projection after every step (projected SGD, also
known as iterative hard thresholding)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from detprune.methods.base import Method, OuterIteration, Pace, Problem, State
from detprune.projections import zero_outside


@dataclass(frozen=True)
class OneShot(Method[State]):
    """One-shot magnitude pruning: W ← Π_S(W) once, at hard pruning; the training before it is unchanged."""

    title: ClassVar[str] = "one-shot magnitude pruning"

    def start(self, problem: Problem, pace: Pace) -> State:
        """Nothing but k."""
        return State()

    def end_outer_iteration(
        self, problem: Problem, state: State, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Only count."""
        problem.check_weights()
        state.k += 1
        return OuterIteration(k=state.k, task_loss=task_loss)


@dataclass(frozen=True)
class Magnitude(Method[State]):
    """Per-step magnitude pruning: W ← Π_S(W) after every optimizer step.

    It is projected SGD, also known as iterative hard thresholding. A pruned weight returns if its next step makes it
    one of the largest.
    """

    title: ClassVar[str] = "per-step magnitude pruning"

    def start(self, problem: Problem, pace: Pace) -> State:
        """Nothing but k."""
        return State()

    def after_step(self, problem: Problem, state: State) -> None:
        """Project the weights in place."""
        weights: list[Tensor] = [weight.detach() for weight in problem.weights]
        for weight, mask in zip(weights, problem.masks(weights), strict=True):
            zero_outside(weight, mask)

    def end_outer_iteration(
        self, problem: Problem, state: State, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Count the outer iteration, and log it; the weights lie in the set already."""
        problem.check_weights()
        state.k += 1
        return OuterIteration(
            k=state.k, task_loss=task_loss, penalty=0.0, residual_norm=0.0, relative_residual=0.0
        )
