"""The methods written straight from docs/methods.md: slow, unfused, with every tensor kept apart.

Sign conventions, and what is compared with what at which k, follow the formulas there, not the code
under test. Everything is float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

Batch = tuple[Tensor, Tensor]
Project = Callable[[list[Tensor]], list[Tensor]]


def project_each(sparsity: float) -> Project:
    """Π_S, tensor by tensor, by sorting."""
    return lambda values: [_keep(v, max(1, round((1 - sparsity) * v.numel()))) for v in values]


def project_jointly(sparsity: float) -> Project:
    """Π_S over all tensors in one."""

    def project(values: list[Tensor]) -> list[Tensor]:
        count = sum(max(1, round((1 - sparsity) * v.numel())) for v in values)
        kept = _keep(torch.cat([v.reshape(-1) for v in values]), count)
        pieces = kept.split([v.numel() for v in values])
        return [piece.view(v.shape) for piece, v in zip(pieces, values, strict=True)]

    return project


def _keep(value: Tensor, count: int) -> Tensor:
    order = value.reshape(-1).abs().sort(descending=True, stable=True).indices
    kept = torch.zeros(value.numel(), dtype=value.dtype)
    kept[order[:count]] = value.reshape(-1)[order[:count]]
    return kept.view(value.shape)


def inner(a: list[Tensor], b: list[Tensor]) -> float:
    """⟨a, b⟩ over all tensors together."""
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def norm(a: list[Tensor]) -> float:
    """‖a‖ over all tensors together."""
    return math.sqrt(inner(a, a))


def minus(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """a − b."""
    return [x - y for x, y in zip(a, b, strict=True)]


def plus(a: list[Tensor], factor: float, b: list[Tensor]) -> list[Tensor]:
    """a + factor · b."""
    return [x + factor * y for x, y in zip(a, b, strict=True)]


@dataclass
class Reference:
    """A model, its own SGD with momentum, and Z and Λ beside it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    project: Project
    rho: float = 0.1
    next_rho: Callable[[float], float] = lambda rho: rho
    free: bool = False  # Z follows W on its support, where Λ is 0
    proximal: bool = False  # the penalty does not go through the optimizer
    rho_due: bool = False  # ρ changes at the first step of an outer iteration
    k: int = 0
    target: list[Tensor] = field(default_factory=list)  # Z
    multiplier: list[Tensor] = field(default_factory=list)  # Λ
    log: list[dict[str, float | bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target = self.project(self.weights())
        self.multiplier = [torch.zeros_like(w) for w in self.weights()]

    def parameters(self) -> list[Tensor]:
        """The live pruned tensors."""
        return [p for p in self.model.parameters() if p.dim() >= 2]

    def weights(self) -> list[Tensor]:
        """Copies of W."""
        return [p.detach().clone() for p in self.parameters()]

    def task_loss(self, batch: Batch) -> Tensor:
        """f on a batch."""
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def penalty(self, multiplier: list[Tensor], residual: list[Tensor]) -> float:
        """⟨Λ, R⟩ + ρ/2 ‖R‖²."""
        return inner(multiplier, residual) + self.rho / 2 * inner(residual, residual)

    def settle(
        self, target: list[Tensor], multiplier: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Z and Λ; where Z is free, it becomes W on its support, and Λ is 0 there."""
        if not self.free:
            return target, multiplier
        outside = [z == 0 for z in target]
        weights = self.weights()
        return (
            [torch.where(o, 0.0, w) for o, w in zip(outside, weights, strict=True)],
            [torch.where(o, m, 0.0) for o, m in zip(outside, multiplier, strict=True)],
        )

    def step(self, batch: Batch) -> float:
        """One optimizer step on the Lagrangian, differentiated as a whole, or on f and then along the penalty."""
        self.change_rho()
        self.target, self.multiplier = self.settle(self.target, self.multiplier)
        loss = self.task_loss(batch)
        lagrangian = loss
        for w, z, m in zip(self.parameters(), self.target, self.multiplier, strict=True):
            if not self.proximal:
                lagrangian = lagrangian + (m * (w - z)).sum() + self.rho / 2 * ((w - z) ** 2).sum()
        self.optimizer.zero_grad()
        lagrangian.backward()
        self.optimizer.step()
        if self.proximal:
            self.flow(self.optimizer.param_groups[0]["lr"])
        return float(loss.detach())

    def change_rho(self) -> None:
        """Λ stays where ρ rises, and falls with it, so that Λ/ρ never grows; as does SLR's step."""
        if self.rho_due:
            before, self.rho = self.rho, self.next_rho(self.rho)
            share = min(1.0, self.rho / before)
            self.multiplier = [share * m for m in self.multiplier]
            self.rho_due = False

    def flow(self, time: float) -> None:
        """W moves for a time along dW/dt = −(Λ + ρ(W − Z)), whose rest point is Z − Λ/ρ."""
        self.target, self.multiplier = self.settle(self.target, self.multiplier)
        for w, z, m in zip(self.parameters(), self.target, self.multiplier, strict=True):
            rest = z - m / self.rho
            w.data = rest + (w.data - rest) * math.exp(-time * self.rho)

    def outer(self, task_loss: float) -> None:
        """End an outer iteration."""
        raise NotImplementedError


class ReferenceADMM(Reference):
    """Z ← Π_S(W + Λ/ρ); Λ ← Λ + ρ(W − Z); ρ may grow."""

    def outer(self, task_loss: float) -> None:
        """End an outer iteration."""
        weights = self.weights()
        self.target, self.multiplier = self.settle(self.target, self.multiplier)
        penalty = self.penalty(self.multiplier, minus(weights, self.target))
        projected = self.project(plus(weights, 1 / self.rho, self.multiplier))
        self.target, self.multiplier = self.settle(projected, self.multiplier)
        residual = minus(weights, self.target)
        self.multiplier = plus(self.multiplier, self.rho, residual)
        self.log.append({"penalty": penalty, "residual_norm": norm(residual), "rho": self.rho})
        self.rho_due = True


@dataclass
class ReferenceSLR(Reference):
    """The paper's Algorithm 1, with W and Z of the previous outer iteration stored."""

    step_size: float = 0.01
    M: float = 300
    r: float = 0.1
    max_step: float = math.inf
    printed: bool = False
    last_norm: float | None = None  # ‖R‖ of the last multiplier update that was made
    step_rho: float = 0.0
    previous_loss: float = math.nan
    previous_weights: list[Tensor] = field(default_factory=list)  # W^{k−1}
    previous_target: list[Tensor] = field(default_factory=list)  # Z^{k−1}

    def outer(self, task_loss: float) -> None:
        """End an outer iteration."""
        self.k += 1
        k, weights = self.k, self.weights()
        self.target, self.multiplier = self.settle(self.target, self.multiplier)
        alpha = 1 - 1 / (self.M * k ** (1 - 1 / k**self.r))
        residual = minus(weights, self.target)  # R = W^k − Z^{k−1}
        before = task_loss + self.penalty(self.multiplier, residual)

        previous_norm = 0.0
        condition_3 = True
        if k > 1:
            previous = minus(self.previous_weights, self.previous_target)
            previous_norm = norm(previous)
            condition_3 = before < self.previous_loss + self.penalty(self.multiplier, previous)
        step, multiplier = self.step_size, self.multiplier
        if k > 1:
            step *= min(1.0, self.rho / self.step_rho)
        self.step_rho = self.rho
        if condition_3:
            if k > 1:
                last = previous_norm if self.printed else self.last_norm or 0.0
                step = alpha * step * last / norm(residual)
            step = min(step, self.max_step * self.rho)
            multiplier = plus(multiplier, step, residual)
            self.last_norm = norm(residual)

        between = self.penalty(multiplier, residual)  # with Λ' before Z moves
        target = self.project(plus(weights, 1 / self.rho, multiplier))
        condition_8 = self.penalty(multiplier, minus(weights, target)) < between
        target, multiplier = self.settle(target, multiplier)
        after = minus(weights, target)  # R₂ = W^k − Z^k
        if condition_8:
            if self.printed:
                step = alpha * step if k == 1 else alpha * step * previous_norm / norm(after)
            else:
                step = alpha * step * (self.last_norm or 0.0) / norm(after)
            step = min(step, self.max_step * self.rho)
            multiplier = plus(multiplier, step, after)
            self.last_norm = norm(after)

        self.log.append(
            {
                "penalty": before - task_loss,
                "residual_norm": norm(after),
                "target_change": norm(minus(target, self.target)),
                "step_size": step,
                "condition_3": condition_3,
                "condition_8": condition_8,
                "rho": self.rho,
            }
        )
        self.step_size, self.multiplier, self.target = step, multiplier, target
        self.previous_loss = task_loss
        self.previous_weights, self.previous_target = weights, [z.clone() for z in target]
        self.rho_due = True


@dataclass
class ReferenceSASADMM(Reference):
    """SAS-ADMM: pruned tensors by its own inner steps, all others by the optimizer."""

    tau: float = 0.9
    sigma: float = 1.09
    M: int = 3
    k0: int = 50
    q: float = 1.1
    nu: float = 25.0
    l1: float | None = None
    average_from: int | None = None
    t: int = 0
    breve: list[Tensor] = field(default_factory=list)  # W̆
    fixed: list[Tensor] = field(default_factory=list)  # W^k
    averaged: list[list[Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.breve, self.fixed = self.weights(), self.weights()

    def inner_steps(self) -> int:
        """mₖ of the outer iteration that runs."""
        k = self.k + 1
        return self.M if k < self.k0 else math.ceil(self.M * (k / self.k0) ** self.q)

    def step(self, batch: Batch) -> float:
        """One inner step; here ``rho`` is β and L has −⟨Λ, W − Z⟩."""
        self.t += 1
        m = self.inner_steps()
        eta = 1 / self.nu
        if self.k + 1 >= self.k0:
            eta = self.M * (self.M + 1) / (self.nu * m * (m + 1))
        beta_t, gamma_t = 2 / (self.t + 1), 2 / (self.t * eta)
        h = plus([-m for m in self.multiplier], self.rho, minus(self.fixed, self.target))
        weights = self.weights()
        hat = [beta_t * b + (1 - beta_t) * w for b, w in zip(self.breve, weights, strict=True)]

        names = [name for name, p in self.model.named_parameters() if p.dim() >= 2]
        points = {name: value.requires_grad_() for name, value in zip(names, hat, strict=True)}
        loss = nn.functional.cross_entropy(
            functional_call(self.model, points, (batch[0],)), batch[1]
        )
        others = [p for p in self.model.parameters() if p.dim() < 2]
        grads = torch.autograd.grad(loss, [*hat, *others])
        for parameter, grad in zip(others, grads[len(hat) :], strict=True):
            parameter.grad = grad
        self.optimizer.step()

        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                self.breve[i] = (
                    gamma_t * self.breve[i] + self.rho * self.fixed[i] - h[i] - grads[i]
                ) / (gamma_t + self.rho)
                parameter.copy_(beta_t * self.breve[i] + (1 - beta_t) * weights[i])
        return float(loss.detach())

    def prox(self, values: list[Tensor]) -> list[Tensor]:
        """Π_S, or soft thresholding by λ₁/β."""
        if self.l1 is None:
            return self.project(values)
        return [v.sign() * (v.abs() - self.l1 / self.rho).clamp(min=0) for v in values]

    def outer(self, task_loss: float) -> None:
        """End an outer iteration."""
        self.k += 1
        weights = self.weights()
        residual = minus(weights, self.target)
        penalty = -inner(self.multiplier, residual) + self.rho / 2 * inner(residual, residual)
        half = plus(self.multiplier, -self.tau * self.rho, residual)
        self.target = self.prox(plus(weights, -1 / self.rho, half))
        residual = minus(weights, self.target)
        self.multiplier = plus(half, -self.sigma * self.rho, residual)
        self.log.append({"penalty": penalty, "residual_norm": norm(residual), "rho": self.rho})
        self.fixed, self.t = weights, 0
        if self.average_from is not None and self.k >= self.average_from:
            self.averaged.append(weights)

    def mean(self) -> list[Tensor]:
        """Ergodic mean of W."""
        return [torch.stack(list(seen)).mean(0) for seen in zip(*self.averaged, strict=True)]
