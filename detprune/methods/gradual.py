"""Two strong baselines, whose sparsity grows over the run:

- gradual magnitude pruning (Zhu & Gupta 2017, "To prune, or not to prune"): masked weights stay masked;
- dynamic pruning with feedback (Lin et al., ICLR 2020, "Dynamic model pruning with feedback"): gradients
  are taken at Π_S(W) and applied to the dense W, so that masked weights may return.

Choice made here: the sparsity always starts at zero at the beginning of the run. Only the length of the ramp is
an option, as a share of the run.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from detprune.errors import InputError
from detprune.loggers import logger
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

LOGGER = logger(__name__)

_NEARLY_ALL = 0.95  # of the sparsity; less at the last choice of the masks is told


@dataclass
class GradualState(State):
    """k, the optimizer steps done (``t``), and the supports (``kept``); the number of planned steps is not saved."""

    t: int = 0
    steps: int = field(default=0, metadata=TRANSIENT)

    def progress(self, step: int) -> float:
        """Share of the run that is done after a step; 1 where the length of the run is not known."""
        return step / self.steps if self.steps else 1.0

    @property
    def supports(self) -> list[Tensor]:
        """Boolean supports of the pruned tensors."""
        return self.tensors["kept"]


@dataclass(frozen=True)
class _Gradual(Method[GradualState]):
    """Base of both methods: every ``every`` steps it chooses the supports anew, at the sparsity reached by then."""

    ramp: float = 0.75
    every: int = 16

    def __post_init__(self) -> None:
        check_ramp(self.ramp, type(self).__name__)
        name = f"{type(self).__name__}: every"
        check_whole(name, self.every, "a whole number of steps, 1 or more")

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """Refuse a ramp with a set whose sparsity is fixed."""
        if self.ramp:
            check_ramp_of_set(sparsity_set, type(self).__name__)

    def unfinished(self, state: GradualState, pace: Pace) -> str | None:
        """The step reached, while the sparsity still grows."""
        share = share_of_sparsity(self.ramp, state.progress(state.t))
        if share == 1:
            return None
        return f"step {state.t} of {state.steps}, at which {share:.0%} of the sparsity is reached"

    def start(self, problem: Problem, pace: Pace) -> GradualState:
        """Keep every weight; without a ramp, the support of Π_S(W).

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
        """Count the step, and choose the supports anew every ``every`` steps."""
        state.t += 1
        if state.t == 1:
            self._warn_of_few_choices(state.steps)
        self.apply(problem, state)
        if state.t % self.every == 0 and self.chooses(state.progress(state.t - self.every)):
            share = share_of_sparsity(self.ramp, state.progress(state.t))
            weights = [weight.detach() for weight in problem.weights]
            for kept, mask in zip(state.supports, problem.masks(weights, share), strict=True):
                kept.copy_(mask)
            self.apply(problem, state)

    def _warn_of_few_choices(self, steps: int) -> None:
        """Warn if ``every`` is so long that training ends before the sparsity is reached."""
        if not (self.ramp and steps):
            return
        choices = steps // self.every
        share = share_of_sparsity(self.ramp, choices * self.every / steps)
        if share >= _NEARLY_ALL:
            return
        LOGGER.warning(
            "%s chooses its masks every %d steps, but the run has %d: training reaches %.0f%% of the sparsity in %d "
            "choices, and hard pruning cuts off the rest at once; give a smaller every, such as %d, or train longer",
            type(self).__name__,
            self.every,
            steps,
            100 * share,
            choices,
            max(1, int(self.ramp * steps / 8)),
        )

    def chooses(self, progress: float) -> bool:
        """Whether the supports may still change.

        Args:
            progress: share of the run that was done at the last choice, from 0 to 1.
        """
        return True

    @abstractmethod
    def apply(self, problem: Problem, state: GradualState) -> None:
        """Apply the supports to the weights after a step."""

    def end_outer_iteration(
        self, problem: Problem, state: GradualState, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """Count the outer iteration, and log it."""
        problem.check_weights()
        state.k += 1
        return OuterIteration(k=state.k, task_loss=task_loss)


@dataclass(frozen=True)
class GradualMagnitude(_Gradual):
    """Gradual magnitude pruning: more and more of the smallest weights are masked for good.

    Attributes:
        ramp: share of the run over which the sparsity grows to the budget's, as a cubic.
        every: optimizer steps between two choices of the masks.
    """

    title: ClassVar[str] = "gradual magnitude pruning"

    def chooses(self, progress: float) -> bool:
        """Whether the full sparsity is not reached yet; after that the masks are final."""
        return progress < self.ramp

    def apply(self, problem: Problem, state: GradualState) -> None:
        """Set W to zero outside the supports; zero weights rank last, so they stay outside."""
        for weight, kept in zip(problem.weights, state.supports, strict=True):
            zero_outside(weight.detach(), kept)


@dataclass(frozen=True)
class DPF(_Gradual):
    """Dynamic pruning with feedback: the gradient at the pruned weights moves the dense ones.

    Attributes:
        ramp: share of the run over which the sparsity grows to the budget's, as a cubic.
        every: optimizer steps between two choices of the masks; 16 in the paper.
    """

    title: ClassVar[str] = "dynamic pruning with feedback"
    extrapolates: ClassVar[bool] = True

    def extrapolated(self, state: GradualState, index: int, weight: Tensor) -> Tensor:
        """W on the present support, zero elsewhere."""
        return keep(weight.detach(), state.supports[index])

    def apply(self, problem: Problem, state: GradualState) -> None:
        """Leave W dense; it is masked at hard pruning only."""
