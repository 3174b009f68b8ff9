"""The residual R = W − Z of ADMM and SLR: its scalars, and the steps of an outer iteration that change Z and Λ."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detprune.methods.base import OuterIteration, Problem
from detprune.methods.scalars import Scalar, as_floats, inner, norm, relative, root_sum_square
from detprune.methods.splitting_state import SplittingState
from detprune.projections import keep


@dataclass(frozen=True)
class Residuals:
    """Scalars of R = W − Z over all tensors: ⟨Λ, R⟩, ‖R‖ and ‖W‖."""

    inner: float
    norm: float
    weight_norm: float

    def penalty(self, rho: float) -> float:
        """⟨Λ, R⟩ + ρ/2 ‖R‖²."""
        return self.inner + rho / 2 * self.norm**2


def follow(problem: Problem, supports: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """values ← W on the supports, in place; the model may have been converted to a wider dtype since."""
    for weight, kept, value in zip(problem.weights, supports, values, strict=True):
        wider = torch.promote_types(weight.dtype, value.dtype) != value.dtype
        now = weight.detach().to(value.dtype) if wider else weight.detach()
        torch.where(kept, now, value, out=value)


def measure(problem: Problem, state: SplittingState) -> Residuals:
    """Scalars of the current residual; if one is not finite, an error names its tensors."""
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


def project_shifted(
    problem: Problem, state: SplittingState, share: float
) -> tuple[float, Residuals, Residuals]:
    """Z ← Π_S(V) at a share of the sparsity, where the anchors hold V = W + Λ/ρ.

    With a free support V decides the support, and on it Z = V = W and Λ = 0.

    Returns:
        ‖Z − Z_prev‖, and the scalars of W − Z against Λ: at Π_S(V), the minimum of the Lagrangian, and
        at the Z that is kept, which differs from it with a free support only.
    """
    masks = problem.masks(state.anchors, share)
    at_minimum: list[Scalar] = []
    if state.supports:
        for weight, shifted, mask in zip(problem.weights, state.anchors, masks, strict=True):
            at_minimum += _against(weight, keep(shifted, mask), shifted, state.rho)
        for kept, mask in zip(state.supports, masks, strict=True):
            kept.copy_(mask)
        follow(problem, masks, state.anchors)
    changes, scalars = [], []
    for weight, target, shifted, mask in zip(
        problem.weights, state.targets, state.anchors, masks, strict=True
    ):
        projected = keep(shifted, mask)
        changes.append(norm(projected - target))
        target.copy_(projected)
        scalars += _against(weight, projected, shifted, state.rho)
    after = _residuals(scalars)
    minimum = _residuals(at_minimum) if at_minimum else after
    return root_sum_square(as_floats(changes)), minimum, after


def against_old_target(problem: Problem, state: SplittingState, share: float) -> Residuals:
    """Scalars of W − Z̃ against Λ, Z̃ the old Z projected onto the set at a share of the sparsity.

    The anchors hold V = W + Λ/ρ.
    """
    scalars = []
    masks = problem.masks(state.targets, share)
    for weight, target, shifted, mask in zip(
        problem.weights, state.targets, state.anchors, masks, strict=True
    ):
        scalars += _against(weight, keep(target, mask), shifted, state.rho)
    return _residuals(scalars)


def _against(weight: Tensor, target: Tensor, shifted: Tensor, rho: float) -> list[Scalar]:
    residual = weight.detach() - target
    return [inner((shifted - weight.detach()).mul_(rho), residual), norm(residual)]


def _residuals(scalars: Sequence[Scalar]) -> Residuals:
    values = as_floats(scalars)
    return Residuals(sum(values[::2]), root_sum_square(values[1::2]), 0.0)


def shift(weight: Tensor, target: Tensor, anchor: Tensor, step: float, rho: float) -> None:
    """anchor ← V = W + Λ'/ρ with Λ' = Λ + step·(W − Z) and Λ = ρ(Z − anchor), in place."""
    residual = weight.detach() - target
    torch.sub(target, anchor, out=anchor)
    anchor.add_(weight.detach()).add_(residual, alpha=step / rho)


def record(
    state: SplittingState, task_loss: float | None, before: Residuals, residual_norm: float
) -> OuterIteration:
    """Return the log entry of an outer iteration, with the fields that ADMM and SLR share."""
    return OuterIteration(
        k=state.k + 1,
        task_loss=task_loss,
        penalty=before.penalty(state.rho),
        residual_norm=residual_norm,
        relative_residual=relative(residual_norm, before.weight_norm),
        rho=state.rho,
        pull=state.pulled,
    )
