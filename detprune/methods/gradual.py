"""The simple methods that are hard to beat, both with a sparsity that grows over the run:

- gradual magnitude pruning (Zhu & Gupta 2017, "To prune, or not to prune"): what is masked stays masked;
- dynamic pruning with feedback (Lin et al., ICLR 2020, "Dynamic model pruning with feedback"): gradients
  are taken at Π_S(W) and applied to the dense W, so that what is masked may return.

Choice made here: of the schedule's times only the length of the ramp is an option, as a share of the
run; the sparsity starts at zero with the run.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from detprune.errors import InputError
from detprune.methods.base import TRANSIENT, Method, OuterIteration, Pace, Problem, State
from detprune.methods.ramp import (
    check_ramp,
    check_ramp_of_set,
    refuse_fixed_sparsity,
    share_of_sparsity,
)
from detprune.projections import keep, zero_outside
from detprune.sets import SparsitySet
from detprune.values import check_whole


@dataclass
class GradualState(State):
    """k, the optimizer steps done, and the supports (``kept``); how many are planned is not saved."""

    t: int = 0
    steps: int = field(default=0, metadata=TRANSIENT)

    def progress(self, step: int) -> float:
        """Share of the run that is over after a step; 1 where its length is not known."""
        return step / self.steps if self.steps else 1.0

    @property
    def supports(self) -> list[Tensor]:
        """Boolean supports of the pruned tensors."""
        return self.tensors["kept"]


@dataclass(frozen=True)
class _Gradual(Method[GradualState]):
    """Base of both: chooses the supports anew every few steps, at the sparsity of the time."""

    ramp: float = 0.75
    every: int = 16

    def __post_init__(self) -> None:
        check_ramp(self.ramp, type(self).__name__)
        name = f"{type(self).__name__}: every"
        check_whole(name, self.every, "a whole number of steps, 1 or more")

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """A ramp needs a sparsity that can grow."""
        if self.ramp:
            check_ramp_of_set(sparsity_set, type(self).__name__)

    def unfinished(self, state: GradualState, pace: Pace) -> str | None:
        """Steps that are still to come, while the sparsity grows."""
        share = share_of_sparsity(self.ramp, state.progress(state.t))
        if share == 1:
            return None
        return f"step {state.t} of {state.steps}, at which {share:.0%} of the sparsity is reached"

    def start(self, problem: Problem, pace: Pace) -> GradualState:
        """Everything is kept; with no ramp Π_S(W)'s support.

        Raises:
            InputError: a ramp where the length of the run is not known, or for a set of fixed sparsity.
        """
        steps = (pace.steps_per_update or 0) * (pace.updates or 0)
        if self.ramp:
            refuse_fixed_sparsity(problem, type(self).__name__)
            if not steps:
                raise InputError(
                    f"{type(self).__name__}: ramp is a share of the run, whose length is not known; "
                    "pass steps_per_update= and updates= to Pruner, or ramp=0"
                )
        state = GradualState(steps=steps)
        weights = [weight.detach() for weight in problem.weights]
        share = share_of_sparsity(self.ramp, 0.0)
        state.tensors = {"kept": [m.clone() for m in problem.masks(weights, share)]}
        return state

    @torch.no_grad()
    def after_step(self, problem: Problem, state: GradualState) -> None:
        """Count the step, and choose the supports anew when it is time."""
        state.t += 1
        self.apply(problem, state)
        if state.t % self.every == 0 and self.chooses(state.progress(state.t - self.every)):
            share = share_of_sparsity(self.ramp, state.progress(state.t))
            weights = [weight.detach() for weight in problem.weights]
            for kept, mask in zip(state.supports, problem.masks(weights, share), strict=True):
                kept.copy_(mask)
            self.apply(problem, state)

    def chooses(self, progress: float) -> bool:
        """Whether anything is left to be chosen.

        Args:
            progress: of the run at the last choice, from 0 to 1.
        """
        return True

    @abstractmethod
    def apply(self, problem: Problem, state: GradualState) -> None:
        """What the supports do to the weights after a step."""

    def end_outer_iteration(
        self, problem: Problem, state: GradualState, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Only count."""
        problem.check_weights()
        state.k += 1
        return OuterIteration(k=state.k, task_loss=task_loss)


@dataclass(frozen=True)
class GradualMagnitude(_Gradual):
    """Gradual magnitude pruning: the smallest weights are masked for good, more and more of them.

    Attributes:
        ramp: share of the run over which the sparsity grows to the budget's, as a cubic.
        every: optimizer steps between two choices of what is masked.
    """

    title: ClassVar[str] = "gradual magnitude pruning"

    def chooses(self, progress: float) -> bool:
        """Not once the whole sparsity is reached: what is masked is masked for good."""
        return progress < self.ramp

    def apply(self, problem: Problem, state: GradualState) -> None:
        """W is zero outside the supports; weights that are zero rank last, so they stay outside."""
        for weight, kept in zip(problem.weights, state.supports, strict=True):
            zero_outside(weight.detach(), kept)


@dataclass(frozen=True)
class DPF(_Gradual):
    """Dynamic pruning with feedback: the gradient at the pruned weights moves the dense ones.

    Attributes:
        ramp: share of the run over which the sparsity grows to the budget's, as a cubic.
        every: optimizer steps between two choices of what is masked; 16 in the paper.
    """

    title: ClassVar[str] = "dynamic pruning with feedback"
    extrapolates: ClassVar[bool] = True

    def extrapolated(self, state: GradualState, index: int, weight: Tensor) -> Tensor:
        """Π_S(W) with the present support."""
        return keep(weight.detach(), state.supports[index])

    def apply(self, problem: Problem, state: GradualState) -> None:
        """W stays dense until hard pruning."""
