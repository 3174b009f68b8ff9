"""The part that ADMM and SLR share: the augmented Lagrangian

    L(W, Z, Λ) = f(W) + ⟨Λ, W − Z⟩ + ρ/2 ‖W − Z‖²,

and its gradient in W, Λ + ρ(W − Z) = ρ(W − A) with the anchor A = Z − Λ/ρ.

Choice made here: Z and A are the only tensors kept, and Λ = ρ(Z − A) is worked out where it is
needed, at the end of an outer iteration. Per step only A is read.

With ``free_support`` the copy follows W on its support T between two outer iterations. For a fixed T that
is the minimum of L over the values of Z (variable projection, Golub & Pereyra 1973): there Z = W, Λ = 0,
and the rest of the penalty, ⟨Λ, W⟩ + ρ/2 ‖W‖² outside T, shrinks the weights to be pruned and lets the kept ones
train. Without a free support ρ/2 ‖W − Z‖² also holds every kept weight near its value at the last update, as if
its learning rate were divided by the pull.

The penalty acts through the gradient, as in the sources, or as its proximal map after a step on f alone,
W ← A + (W − A)·exp(−lr·ρ), which is forward-backward splitting (Parikh & Boyd 2014, "Proximal algorithms",
section 4.2) with the flow of the quadratic in place of its implicit step, and what AdamW does with weight
decay. Through a momentum of m the gradient of the penalty cannot shrink W − A faster than by √m a step, and
from lr·ρ > (1 − √m)² on W swings past A. The proximal map has neither fault, and works with any optimizer. With ρ a
number, the share taken from W − A follows the learning rate of each step and of each weight's group; with ρ by pull
it is the same at every step (``rho.py``, ``momentum.py``).

Where ρ changes to ρ', from one outer iteration to the next, the choice made here is

    U' = U · min(1, ρ/ρ'),   U = Λ/ρ the displacement of the anchor.

Λ is kept while ρ rises, which is Boyd et al. 2011, section 3.4.1 ("the scaled dual variable must be rescaled"). Where ρ
falls, that rule would enlarge U, and W would be pulled that far past Z. There U is kept, and Λ falls with ρ. This is
still the method of multipliers. Its convergence is proved for a ρ that is fixed after finitely many iterations (Boyd),
from any Λ. While ρ changes, Λ' = c·Λ with 0 ≤ c ≤ 1 stays in every ball around 0 that Λ was in. The safeguarded
multipliers of Andreani et al. 2007 ("On augmented Lagrangian methods with general lower-level constraints") are
projected into such a ball, at no cost in convergence.

By pull the rule is applied to the pull, in place of ρ = pull/Σ lr. An outer iteration moves W by Σ lr·∇f and by
pull·(W − A). So it is an outer iteration for the loss Σ lr·f, which has the same minima as f, with pull in place of ρ
and pull·U in place of Λ. A schedule that changes Σ lr scales this loss; U stays as it is, and never grows. If the rule
were applied to ρ, U would shrink each time the learning rate falls, and not grow back when it rises: cyclic schedules
would lose what the multipliers have learned (3 to 7 points of accuracy on the tests' small network). SLR's step s keeps
its ratio to ρ in the same way.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from typing_extensions import TypeVar

from detprune.errors import InputError
from detprune.loggers import logger
from detprune.methods.base import (
    Method,
    Pace,
    Problem,
    Rate,
    like_weight,
)
from detprune.methods.momentum import pull_through_momentum
from detprune.methods.penalty import add_pull, pull_towards
from detprune.methods.ramp import (
    check_ramp,
    check_ramp_of_set,
    refuse_fixed_sparsity,
    share_of_sparsity,
)
from detprune.methods.residuals import follow
from detprune.methods.rho import Growth, Pull, Rho, parse_rho
from detprune.methods.splitting_state import SplittingState
from detprune.projections import keep
from detprune.sets import SparsitySet
from detprune.values import check_flag

LOGGER = logger(__name__)

_JUMP = 100.0
"""Factor by which the learning rate may rise in one step without a warning.

Measured: up to a rise of 100-fold the loss less than doubled; at 1,000-fold it rose fortyfold.
"""


P = TypeVar("P", bound=SplittingState, default=SplittingState)


@dataclass(frozen=True)
class Splitting(Method[P]):
    """Base of the methods that pull W towards a copy Z on the set."""

    needs_updates: ClassVar[bool] = True

    rho: Rho | str = field(default="auto", kw_only=True)
    ramp: float = field(default=0.0, kw_only=True)
    free_support: bool = field(default=False, kw_only=True)
    penalty: Literal["gradient", "proximal"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", parse_rho(self.rho))
        check_ramp(self.ramp, type(self).__name__)
        check_flag(f"{type(self).__name__}: free_support", self.free_support)
        if self.penalty is None:
            penalty = "proximal" if isinstance(self.rho, Pull) else "gradient"
            object.__setattr__(self, "penalty", penalty)
        if self.penalty not in ("gradient", "proximal"):
            raise InputError(
                f"{type(self).__name__}: penalty is {self.penalty!r}; allowed are 'gradient', 'proximal', or "
                "none, which is 'proximal' where rho is chosen by pull"
            )

    @property
    def needs_sgd(self) -> bool:
        """A pull through the gradient depends on the optimizer's momentum."""
        return isinstance(self.rho, Pull) and self.penalty == "gradient"

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """Refuse a ramp with a set whose sparsity is fixed."""
        if self.ramp:
            check_ramp_of_set(sparsity_set, f"{type(self).__name__}'s ramp")

    def unfinished(self, state: P, pace: Pace) -> str | None:
        """The outer iteration reached, where ρ or the sparsity still grow."""
        if pace.updates is None or state.k >= pace.updates:
            return None
        share = self.share_of_sparsity(state.k, pace)
        if share == 1 and not isinstance(self.rho, Pull):
            return None
        grown = f", in which Z has {share:.0%} of its sparsity" if share < 1 else ""
        return f"outer iteration {state.k} of {pace.updates}{grown}"

    def start(self, problem: Problem, pace: Pace) -> P:
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
        zeros = [0.0] * len(problem.weights)
        state.held, state.highest = list(zeros), list(zeros)
        rho = self.rho_in_sight(problem, 1, pace)
        state.rho = rho if rho < math.inf else 1.0  # any value will do, for Λ = 0
        return state

    def before_step(self, problem: Problem, state: P, pace: Pace) -> None:
        """grad ← grad + ρ(W − A), in place, unless the penalty is proximal."""
        if not state.opened:
            self.open(problem, state, pace)
        rates = pace.rates
        if isinstance(self.rho, Pull):
            per_step = self.rho.per_step(state.k + 1, pace)
            state.shares = [-math.expm1(-per_step)] * len(rates)
            state.pulled = (state.pulled or 0.0) + per_step
            state.time += self.effective_rate(problem, rates)
            if self.penalty == "gradient":
                self.pull_through_gradient(problem, state, rates)
            return
        known = self.penalty == "proximal" or all(rate.momentum is not None for rate in rates)
        time = self.effective_rate(problem, rates) if known else 0.0
        state.time += time
        state.pulled = (state.pulled or 0.0) + state.rho * time if known else None
        if self.penalty == "proximal":
            state.shares = [-math.expm1(-rate.learning_rate * state.rho) for rate in rates]
        else:
            add_pull(problem.weights, state.anchors, [rate.sign * state.rho for rate in rates])

    def pull_through_gradient(
        self, problem: Problem, state: SplittingState, rates: Sequence[Rate]
    ) -> None:
        """Pull through the gradient as far as momentum can carry it; ``state.shares`` keep the rest of each share."""
        self.check_rates(rates)
        coefficients, shares = [0.0] * len(rates), state.shares or []
        jumped = 0.0
        for i, (weight, rate) in enumerate(zip(problem.weights, rates, strict=True)):
            if state.held[i] and rate.learning_rate > _JUMP * max(state.highest[i], rate.highest):
                jumped = rate.learning_rate
            state.highest[i] = max(state.highest[i], rate.highest, rate.learning_rate)
            if weight.grad is None:  # SGD leaves it, and its momentum, alone
                continue
            pulled = pull_through_momentum(rate, shares[i], state.held[i], state.highest[i])
            coefficients[i], state.held[i], shares[i] = pulled.coefficient, pulled.held, pulled.rest
        add_pull(problem.weights, state.anchors, coefficients)
        if jumped:
            LOGGER.warning(
                "the learning rate rose more than %g-fold in one step, to %g, which no schedule had announced: "
                "the penalty held in the momentum now acts too strongly, and training may diverge; use "
                "penalty='proximal', or make a new optimizer where the learning rate rises",
                *(_JUMP, jumped),
            )

    @torch.no_grad()
    def after_step(self, problem: Problem, state: P) -> None:
        """A ← W on a free support, so that nothing pulls there; then the proximal map's W ← A + (1 − share)(W − A)."""
        if self.free_support:
            follow(problem, state.supports, state.anchors)
        if state.shares is not None:
            pull_towards(problem.weights, state.anchors, state.shares)
            state.shares = None

    def open(self, problem: Problem, state: SplittingState, pace: Pace) -> None:
        """Begin the outer iteration at its first step, with U' = U·min(1, ρ/ρ')."""
        strength = self.strength_at(state.k + 1, pace)
        if state.strength and strength > state.strength:
            state.rescale(state.strength / strength)
        state.strength, state.opened = strength, True
        if not isinstance(self.rho, Pull):
            state.rho = strength

    def close(self, problem: Problem, state: SplittingState, pace: Pace) -> None:
        """Settle ρ at the end of an outer iteration, before ρ is used."""
        state.warn_of_no_training(pace.updates)
        if not state.opened:
            problem.check_weights()  # before anything changes
            self.open(problem, state, pace)
        if isinstance(self.rho, Pull):
            self.warn_of_other_steps(state, pace)
            if state.pulled and state.time > 0:
                state.rho = state.pulled / state.time
            elif (rho := self.rho_in_sight(problem, state.k + 1, pace)) < math.inf:
                state.rho = rho

    def warn_of_other_steps(self, state: SplittingState, pace: Pace) -> None:
        """Warn once if an outer iteration had half or twice the stated steps, or worse, so that another pull acted.

        An odd number of batches is halved up. The last outer iteration of a run may be cut short.
        """
        asked = pace.steps_per_update or 0
        per_step = self.strength_at(state.k + 1, pace) / max(1, asked)
        steps = round((state.pulled or 0.0) / per_step)
        short = 2 * steps <= asked + 1 and state.k + 1 < (pace.updates or 0)
        far = (short or steps + 1 >= 2 * asked) and abs(steps - asked) >= 3
        if state.told or not steps or not far:
            return
        state.told = True
        LOGGER.warning(
            "outer iteration %d had %d optimizer steps, but the Pruner was told steps_per_update=%d: the pull that "
            "acted is %.3g where %.3g was asked for, which costs accuracy. Pass the number of optimizer steps between "
            "two calls of update, or call update after that many steps",
            state.k + 1,
            steps,
            asked,
            *(steps * per_step, asked * per_step),
        )

    def end(self, state: SplittingState) -> None:
        """Mark the outer iteration as ended; the next one opens with its first step."""
        state.k += 1
        state.opened, state.pulled, state.time = False, 0.0, 0.0
        if not isinstance(self.rho, Pull):  # again, for the state of an earlier version lacks it
            state.strength = state.rho

    def rho_in_sight(self, problem: Problem, k: int, pace: Pace) -> float:
        """ρ of outer iteration ``k``; by pull, as if the learning rate stayed: infinite where that is 0."""
        if isinstance(self.rho, Pull):
            if self.penalty == "gradient":
                self.check_rates(pace.rates)
            per_step = self.rho.per_step(k, pace)
            time = self.effective_rate(problem, pace.rates)
            return per_step / time if time > 0 else math.inf
        return self.strength_at(k, pace)

    def strength_at(self, k: int, pace: Pace) -> float:
        """ρ of outer iteration ``k`` where it is a number, its pull where it is chosen by pull."""
        if isinstance(self.rho, str):
            raise TypeError("rho was parsed in __post_init__")
        if isinstance(self.rho, Pull):
            return self.rho.at(k, pace)
        return self.rho.at(k) if isinstance(self.rho, Growth) else self.rho

    def effective_rate(self, problem: Problem, rates: Sequence[Rate]) -> float:
        """Mean over all pruned weights of lr, or of lr/(1 − momentum) where the penalty goes through the gradient."""
        through = self.penalty == "gradient"
        own = [
            rate.learning_rate
            * ((1 - rate.dampening) / max(1 - (rate.momentum or 0.0), 1e-3) if through else 1.0)
            for rate in rates
        ]
        if len(set(own)) == 1:
            return own[0]
        sizes = [weight.numel() for weight in problem.weights]
        return sum(size * value for size, value in zip(sizes, own, strict=True)) / sum(sizes)

    def check_rates(self, rates: Sequence[Rate]) -> None:
        """Refuse a pull through the gradient with an optimizer other than SGD."""
        if any(rate.momentum is None for rate in rates):
            raise InputError(
                "rho by pull is worked out for SGD (lr, momentum) where the penalty goes through the gradient, "
                "but this optimizer is another; leave out penalty, or give rho as a number, for example rho=0.1"
            )

    def share_of_sparsity(self, k: int, pace: Pace) -> float:
        """Share of the sparsity that Z has after outer iteration ``k``.

        Raises:
            InputError: there is a ramp, but the length of the run is not known.
        """
        if not self.ramp:
            return 1.0
        if pace.updates is None:
            raise InputError(
                f"{type(self).__name__}: ramp is a share of the run, whose length is not known; pass "
                "updates= (number of outer iterations) to Pruner, or ramp=0"
            )
        return share_of_sparsity(self.ramp, (k + 1) / pace.updates)

    @abstractmethod
    def make_state(self) -> P:
        """Return an empty state of the method."""
