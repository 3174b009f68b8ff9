"""SAS-ADMM, symmetric accelerated stochastic ADMM (Bai, Hager & Zhang 2022, "An inexact accelerated
stochastic ADMM for separable convex optimization"; Yuan et al. 2024 for pruning).

It is an optimizer of its own for the pruned tensors: the framework's optimizer and its weight decay do not see
them. All other parameters follow that optimizer on the same gradients. Here L has −⟨Λ, W − Z⟩.

With h = −Λ + β(Wᵏ − Zᵏ), Wᵏ cancels in the inner step's βWᵏ − h = Λ + βZᵏ. So this sum is kept (``pull``) in
place of Λ and Wᵏ. Tensors kept per weight: Z, ``pull``, W̆ (``momentum_point``), W while its gradient is taken
at Ŵ (``backup``), and the ergodic mean where it is asked for.

Choice made here: the inner loop may also be ended early or late by calling ``update`` at another
time; ηₖ always follows the planned mₖ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

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
from detprune.methods.ramp import (
    check_ramp,
    check_ramp_of_set,
    refuse_fixed_sparsity,
    share_of_sparsity,
)
from detprune.methods.scalars import as_floats, inner, norm, relative, root_sum_square
from detprune.projections import keep
from detprune.sets import SparsitySet
from detprune.values import check_number, check_whole, make_plain


@dataclass
class SASADMMState(State):
    """k, t, and Z, Λ + βZ, W̆ per tensor."""

    t: int = 0
    averaged: int = 0


@dataclass(frozen=True)
class SASADMM(Method[SASADMMState]):
    """Symmetric accelerated stochastic ADMM.

    Attributes:
        beta: penalty coefficient β.
        tau, sigma: dual steps before and after the Z-step; must lie in the region where the method
            converges: τ ≤ 1, τ + σ > 0, 1 + τ + σ − τ² − σ² − τσ > 0.
        inner_steps: M, planned optimizer steps per outer iteration while k < k0; afterwards
            ⌈M (k/k0)^q⌉.
        k0: outer iteration from which the inner loops grow longer.
        q: exponent of that growth.
        nu: ν; 1/ν is the step size η of the first outer iterations.
        l1: λ₁ of the ℓ1 form, whose Z-step is soft thresholding by λ₁/β instead of Π_S.
        ramp: share of the run over which the sparsity of Z grows to the budget's, as a cubic; 0, as in the
            paper: it has it from the start.
        average_from: outer iteration from which W is averaged (ergodic mean); hard pruning then
            projects the mean. None keeps the last W.
    """

    beta: float = 0.04
    tau: float = 0.9
    sigma: float = 1.09
    inner_steps: int = 50
    k0: int = 50
    q: float = 1.1
    nu: float = 25.0
    l1: float | None = None
    average_from: int | None = None
    ramp: float = 0.0

    title: ClassVar[str] = "SAS-ADMM"
    extrapolates: ClassVar[bool] = True
    replaces_optimizer: ClassVar[bool] = True
    has_inner_loop: ClassVar[bool] = True
    needs_updates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        t = check_number("SAS-ADMM: tau", self.tau, "a number up to 1", lambda tau: tau <= 1)
        s = check_number("SAS-ADMM: sigma", self.sigma, "a number", lambda sigma: True)
        if not (t <= 1 and t + s > 0 and 1 + t + s - t * t - s * s - t * s > 0):
            raise InputError(
                f"SAS-ADMM: (tau, sigma) = ({t}, {s}) lies outside the region of convergence "
                "tau ≤ 1, tau + sigma > 0, 1 + tau + sigma − tau² − sigma² − tau·sigma > 0; "
                "the reference setting is (0.9, 1.09)"
            )
        for name in ("beta", "nu"):
            check_number(f"SAS-ADMM: {name}", getattr(self, name), "a number > 0", lambda v: v > 0)
        for name in ("inner_steps", "k0"):
            check_whole(f"SAS-ADMM: {name}", getattr(self, name), "a whole number, 1 or more")
        check_number("SAS-ADMM: q", self.q, "a number, 0 or more", lambda q: q >= 0)
        if self.l1 is not None:
            check_number("SAS-ADMM: l1", self.l1, "a number > 0, or none", lambda l1: l1 > 0)
        if self.average_from is not None:
            allowed = "a number of an outer iteration, from 1, or none"
            check_whole("SAS-ADMM: average_from", self.average_from, allowed)
        check_ramp(self.ramp, "SAS-ADMM")
        make_plain(self)
        if self.ramp and self.l1 is not None:
            raise InputError(
                f"SAS-ADMM: ramp is {self.ramp} and l1 is {self.l1}; soft thresholding has no sparsity "
                "that could grow, so leave one of them out"
            )

    def planned_steps(self, k: int) -> int:
        """mₖ, for k from 1."""
        if k < self.k0:
            return self.inner_steps
        return math.ceil(self.inner_steps * math.pow(k / self.k0, self.q))

    def eta(self, k: int) -> float:
        """ηₖ, for k from 1."""
        if k < self.k0:
            return 1 / self.nu
        m = self.planned_steps(k)
        return self.inner_steps * (self.inner_steps + 1) / (self.nu * m * (m + 1))

    def check_set(self, sparsity_set: SparsitySet) -> None:
        """Refuse a ramp with a set whose sparsity is fixed."""
        if self.ramp:
            check_ramp_of_set(sparsity_set, "SAS-ADMM's ramp")

    def unfinished(self, state: SASADMMState, pace: Pace) -> str | None:
        """The outer iteration reached, while the sparsity still grows."""
        share = self.share_of_sparsity(state.k, pace)
        return (
            None if share == 1 else f"outer iteration {state.k}, with {share:.0%} of the sparsity"
        )

    def start(self, problem: Problem, pace: Pace) -> SASADMMState:
        """Z = Π_S(W), Λ = 0, W̆ = W."""
        state = SASADMMState()
        kinds = ["target", "pull", "momentum_point"]
        if self.average_from is not None:
            kinds.append("mean")
        state.tensors = {kind: [like_weight(w) for w in problem.weights] for kind in kinds}
        if self.ramp:
            refuse_fixed_sparsity(problem, "SAS-ADMM's ramp")
        values = [
            w.detach().to(z.dtype)
            for w, z in zip(problem.weights, self._targets(state), strict=True)
        ]
        masks = problem.masks(values, self.share_of_sparsity(0, pace))
        for index, (value, mask) in enumerate(zip(values, masks, strict=True)):
            target = keep(value, mask)
            state.tensors["target"][index].copy_(target)
            state.tensors["pull"][index].copy_(target).mul_(self.beta)
            state.tensors["momentum_point"][index].copy_(value)
            if self.average_from is not None:
                state.tensors["mean"][index].copy_(value)
        return state

    def extrapolated(self, state: SASADMMState, index: int, weight: Tensor) -> Tensor:
        """Ŵ = βₜ W̆ + (1 − βₜ) W of the next step."""
        beta_t = 2 / (state.t + 2)
        momentum_point = state.tensors["momentum_point"][index]
        return torch.lerp(weight.detach().to(momentum_point.dtype), momentum_point, beta_t)

    @torch.no_grad()
    def before_step(self, problem: Problem, state: SASADMMState, pace: Pace) -> None:
        """Step W̆ and W along the gradients; tensors without a gradient stay."""
        t = state.t + 1
        beta_t, gamma_t = 2 / (t + 1), 2 / (t * self.eta(state.k + 1))
        active = [
            (weight, weight.grad, pull, momentum_point, rate.sign)
            for weight, pull, momentum_point, rate in zip(
                problem.weights,
                state.tensors["pull"],
                state.tensors["momentum_point"],
                pace.rates,
                strict=True,
            )
            if weight.grad is not None
        ]
        same_dtype = all(weight.dtype == point.dtype for weight, _, _, point, _ in active)
        signs = {sign for *_, sign in active}  # −1 where the optimizer maximises
        if same_dtype and len(signs) == 1 and problem.device.type != "cpu":
            # one kernel launch for all tensors
            columns = list(zip(*active, strict=True))[:4]
            weights, grads, pulls, points = (list(tensors) for tensors in columns)
            torch._foreach_mul_(points, gamma_t)
            torch._foreach_add_(points, pulls)
            torch._foreach_sub_(points, grads, alpha=signs.pop())
            torch._foreach_div_(points, gamma_t + self.beta)
            torch._foreach_lerp_(weights, points, beta_t)
            active = []
        for weight, grad, pull, momentum_point, sign in active:
            momentum_point.mul_(gamma_t).add_(pull).sub_(grad, alpha=sign)
            momentum_point.div_(gamma_t + self.beta)
            if weight.dtype == momentum_point.dtype:
                weight.lerp_(momentum_point, beta_t)
            else:
                weight.copy_(torch.lerp(weight.to(momentum_point.dtype), momentum_point, beta_t))
        state.t = t

    def is_due(self, state: SASADMMState) -> bool:
        """Whether mₖ inner steps are done."""
        return state.t >= self.planned_steps(state.k + 1)

    @torch.no_grad()
    def end_outer_iteration(
        self, problem: Problem, state: SASADMMState, task_loss: float | None, pace: Pace
    ) -> OuterIteration:
        """The dual step τ, the Z-step, and the dual step σ."""
        beta, k = self.beta, state.k + 1
        scalars = []
        for weight, target, pull in zip(
            problem.weights, self._targets(state), state.tensors["pull"], strict=True
        ):
            residual = weight.detach() - target
            multiplier = torch.sub(pull, target, alpha=beta)
            scalars += [inner(multiplier, residual), norm(residual), norm(weight.detach())]
        values = as_floats(scalars)
        inners, norms, weight_norms = values[::3], values[1::3], values[2::3]
        problem.raise_if_not_finite(weight_norms, "the norm of the weight")
        problem.raise_if_not_finite(norms, "the norm of W − Z")
        problem.raise_if_not_finite(inners, "the inner product of Λ and W − Z")

        shifted = []
        for weight, target, pull in zip(
            problem.weights, self._targets(state), state.tensors["pull"], strict=True
        ):
            # Λ½ = Λ − τβ(W − Z) takes the place of Λ + βZ in ``pull``
            pull.sub_(target, alpha=beta).sub_(weight.detach() - target, alpha=self.tau * beta)
            shifted.append(torch.sub(weight.detach(), pull, alpha=1 / beta))
        changes, residual_norms = [], []
        for weight, target, pull, projected in zip(
            problem.weights,
            self._targets(state),
            state.tensors["pull"],
            self._proximal(problem, shifted, self.share_of_sparsity(k, pace)),
            strict=True,
        ):
            changes.append(norm(projected - target))
            target.copy_(projected)
            residual = weight.detach() - target
            residual_norms.append(norm(residual))
            pull.sub_(residual, alpha=self.sigma * beta).add_(target, alpha=beta)
        state.k, state.t = k, 0
        self._average(problem, state)
        residual_norm = root_sum_square(as_floats(residual_norms))
        return OuterIteration(
            k=k,
            task_loss=task_loss,
            penalty=-sum(inners) + beta / 2 * root_sum_square(norms) ** 2,
            residual_norm=residual_norm,
            relative_residual=relative(residual_norm, root_sum_square(weight_norms)),
            target_change=root_sum_square(as_floats(changes)),
            rho=beta,
        )

    def final_points(self, problem: Problem, state: SASADMMState) -> Sequence[Tensor]:
        """The ergodic mean once it has begun, W otherwise."""
        return state.tensors["mean"] if state.averaged else problem.weights

    def share_of_sparsity(self, k: int, pace: Pace) -> float:
        """Share of the sparsity that Z has after outer iteration ``k``: the ramp's at the end of the next one.

        Raises:
            InputError: there is a ramp, but the length of the run is not known.
        """
        if not self.ramp:
            return 1.0
        if pace.updates is None or pace.steps_per_update is None:
            raise InputError(
                "SAS-ADMM: ramp is a share of the run, whose length is not known; pass steps_per_update= "
                "and updates= (their product is the number of steps) to Pruner, or ramp=0"
            )
        steps = sum(self.planned_steps(i) for i in range(1, k + 2))
        return share_of_sparsity(self.ramp, steps / (pace.steps_per_update * pace.updates))

    def _proximal(self, problem: Problem, shifted: list[Tensor], share: float) -> list[Tensor]:
        if self.l1 is not None:
            return [torch.nn.functional.softshrink(v, self.l1 / self.beta) for v in shifted]
        masks = problem.masks(shifted, share)
        return [keep(value, mask) for value, mask in zip(shifted, masks, strict=True)]

    def _average(self, problem: Problem, state: SASADMMState) -> None:
        if self.average_from is None or state.k < self.average_from:
            return
        state.averaged += 1
        for mean, weight in zip(state.tensors["mean"], problem.weights, strict=True):
            mean.lerp_(weight.detach().to(mean.dtype), 1 / state.averaged)

    @staticmethod
    def _targets(state: SASADMMState) -> list[Tensor]:
        return state.tensors["target"]
