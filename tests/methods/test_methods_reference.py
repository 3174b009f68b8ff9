"""Every method, step by step beside an obvious reference in float64."""

import copy
from collections.abc import Callable
from typing import Literal, TypeAlias

import pytest
import torch
from method_references import (
    Project,
    Reference,
    ReferenceADMM,
    ReferenceSASADMM,
    ReferenceSLR,
    project_each,
    project_jointly,
)
from torch import Tensor, nn

from detprune import ADMM, SASADMM, SLR, Budget, Growth, Magnitude, Method, OneShot, Pruner

OUTER, STEPS, SPARSITY, TOLERANCE = 14, 4, 0.7, 1e-9
LR = 0.1
Penalty: TypeAlias = Literal["gradient", "proximal"]


def net() -> nn.Sequential:
    """A convolution and a linear layer, smooth, in float64."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch() -> tuple[Tensor, Tensor]:
    """The next random images and labels."""
    return torch.randn(6, 2, 6, 6, dtype=torch.float64), torch.randint(3, (6,))


class Pair:
    """A pruner and a reference, trained on the same batches, each with an optimizer of its own."""

    def __init__(
        self,
        method: Method,
        reference: Callable[[nn.Module, torch.optim.Optimizer, Project], Reference],
        scope: str = "layer",
        lr: float = LR,
    ) -> None:
        self.model, twin = net(), net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        budget = Budget(sparsity=SPARSITY, scope=scope)  # type: ignore[arg-type]
        self.pruner = Pruner(self.model, self.optimizer, method, budget=budget)
        project = (project_each if scope == "layer" else project_jointly)(SPARSITY)
        others = list(twin.parameters())
        self.reference = reference(twin, torch.optim.SGD(others, lr=lr, momentum=0.9), project)

    def step(self) -> tuple[float, float]:
        """One optimizer step of both on the next batch."""
        images, labels = batch()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.pruner.observe(loss)
        return float(loss.detach()), self.reference.step((images, labels))

    def outer(self, probe_loss: float | None = None) -> None:
        """One outer iteration of both, compared at its end; fₖ is the mean or a probe's."""
        losses = [self.step()[1] for _ in range(STEPS)]
        task_loss = sum(losses) / STEPS if probe_loss is None else probe_loss
        self.reference.outer(task_loss)
        entry = self.pruner.update(probe_loss)
        assert entry.task_loss == pytest.approx(task_loss, abs=TOLERANCE)
        for name, value in self.reference.log[-1].items():
            actual = getattr(entry, name)
            if isinstance(value, bool):
                assert actual is value, name
            else:
                assert actual == pytest.approx(value, abs=TOLERANCE), name
        self.compare()

    def tensors(self, kind: str) -> list[Tensor]:
        """One kind of tensor of the method's state."""
        state = self.pruner.state_dict()["state"]
        return list(state["tensors"][kind].values())

    def compare(self) -> None:
        """Weights, biases too, and Z."""
        assert_near(list(self.model.parameters()), list(self.reference.model.parameters()))
        assert_near(self.tensors("target"), self.reference.target)


def assert_near(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Within the tolerance, absolutely; where one is zero the other is too."""
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.detach(), e.detach(), rtol=0, atol=TOLERANCE)
        assert torch.equal(a == 0, e == 0)


def assert_multipliers(pair: Pair) -> None:
    """Λ = ρ(Z − A)."""
    rho = pair.pruner.state_dict()["state"]["scalars"]["rho"]
    assert rho == pytest.approx(pair.reference.rho, rel=1e-12)
    pairs = zip(pair.tensors("target"), pair.tensors("anchor"), strict=True)
    multipliers = [rho * (target - anchor) for target, anchor in pairs]
    for ours, theirs in zip(multipliers, pair.reference.multiplier, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    assert max(float(m.abs().max()) for m in multipliers) > 1e-3, "Λ never moved: nothing is tested"


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("growing", [False, True])
def test_admm(scope: str, growing: bool, free: bool, penalty: Penalty) -> None:
    rho = Growth(0.05, 1.3, 0.4) if growing else 0.1
    start = 0.05 if growing else 0.1

    def reference(
        model: nn.Module, optimizer: torch.optim.Optimizer, project: Project
    ) -> Reference:
        def grow(rho: float) -> float:
            return min(1.3 * rho, 0.4) if growing else rho

        return ReferenceADMM(
            model,
            optimizer,
            project,
            rho=start,
            next_rho=grow,
            free=free,
            proximal=penalty == "proximal",
        )

    pair = Pair(ADMM(rho=rho, free_support=free, penalty=penalty), reference, scope)
    for _ in range(OUTER):
        pair.outer()
        assert_multipliers(pair)
    assert [entry.k for entry in pair.pruner.history] == list(range(1, OUTER + 1))
    assert (pair.reference.rho == 0.4) is growing


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("growing", [False, True])
def test_slr(scope: str, growing: bool, free: bool, penalty: Penalty) -> None:
    rho = Growth(0.05, 1.1, 0.2) if growing else 0.1
    start = 0.05 if growing else 0.1

    def reference(
        model: nn.Module, optimizer: torch.optim.Optimizer, project: Project
    ) -> Reference:
        def grow(rho: float) -> float:
            return min(1.1 * rho, 0.2) if growing else rho

        return ReferenceSLR(
            model,
            optimizer,
            project,
            rho=start,
            next_rho=grow,
            free=free,
            proximal=penalty == "proximal",
            step_size=0.05,
            M=20,
            r=0.2,
        )

    method = SLR(rho=rho, free_support=free, penalty=penalty, step_size=0.05, M=20, r=0.2)
    pair = Pair(method, reference, scope)
    for _ in range(OUTER):
        pair.outer()
        assert_multipliers(pair)
    seen = {entry.condition_3 for entry in pair.pruner.history}
    assert seen == {True, False}, "the run must show condition (3) met and not met"


@pytest.mark.parametrize("rule", ["consistent", "printed"])
def test_slr_with_a_bounded_step(rule: Literal["consistent", "printed"]) -> None:
    first = 0.028 if rule == "consistent" else 0.05

    def reference(
        model: nn.Module, optimizer: torch.optim.Optimizer, project: Project
    ) -> Reference:
        return ReferenceSLR(
            model,
            optimizer,
            project,
            rho=0.1,
            step_size=first,
            max_step=0.3,
            printed=rule == "printed",
        )

    pair = Pair(SLR(rho=0.1, step_size=first, max_step=0.3, step_rule=rule), reference)
    for _ in range(OUTER):
        pair.outer()
        assert_multipliers(pair)
    steps = [entry.step_size or 0.0 for entry in pair.pruner.history]
    assert max(steps) == pytest.approx(0.03, rel=0.01), "the run must show the bound at work"


# nearly at rest Z hardly changes: condition (8) then holds by a hair, and needs both its sides right
@pytest.mark.parametrize("lr", [LR, 1e-3], ids=["moving", "nearly at rest"])
def test_slr_conditions_follow_a_probe_loss(lr: float) -> None:
    def reference(
        model: nn.Module, optimizer: torch.optim.Optimizer, project: Project
    ) -> Reference:
        return ReferenceSLR(model, optimizer, project, rho=0.1, step_size=0.05)

    pair = Pair(SLR(rho=0.1, step_size=0.05), reference, lr=lr)
    for loss in (1.0, 0.5, 9.0, 8.0, 8.5, 99.0, 100.0, 0.1):
        pair.outer(probe_loss=loss)
        assert_multipliers(pair)
    # the penalty of this model is far smaller than these steps of the loss
    met = [entry.condition_3 for entry in pair.pruner.history]
    assert met == [True, True, False, True, False, False, False, True]
    steps = [entry.step_size for entry in pair.pruner.history]
    assert len(set(steps)) == len(steps), "condition (8) was met and moved the step size each time"


def test_slr_leaves_the_step_size_alone_where_a_residual_is_zero() -> None:
    model = net()
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.dim() >= 2):
            weight.copy_(project_each(SPARSITY)([weight])[0])
    pruner = Pruner(model, None, SLR(rho=0.1, step_size=0.05), budget=Budget(sparsity=SPARSITY))
    entries = [pruner.update(task_loss=loss) for loss in (1.0, 0.5, 0.9)]
    assert [entry.condition_3 for entry in entries] == [True, True, False]
    assert [entry.condition_8 for entry in entries] == [False, False, False]
    assert [entry.step_size for entry in entries] == [0.05, 0.05, 0.05]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k0": 3, "M": 2, "q": 1.4},
        {"l1": 2e-3},
        {"average_from": 9, "tau": 0.5, "sigma": 1.2},
    ],
    ids=["reference setting", "growing inner loop", "l1", "averaged"],
)
def test_sas_admm(options: dict[str, float]) -> None:
    own = {"inner_steps" if name == "M" else name: value for name, value in options.items()}
    own.setdefault("inner_steps", STEPS)
    kwargs = {"M": STEPS, "rho": 0.04, **options}

    def reference(
        model: nn.Module, optimizer: torch.optim.Optimizer, project: Project
    ) -> Reference:
        biases = [p for p in model.parameters() if p.dim() < 2]
        alone = torch.optim.SGD(biases, lr=LR, momentum=0.9)
        return ReferenceSASADMM(model, alone, project, **kwargs)  # type: ignore[arg-type]

    pair = Pair(SASADMM(beta=0.04, nu=25, **own), reference)  # type: ignore[arg-type]
    lengths = []
    assert isinstance(pair.reference, ReferenceSASADMM)
    for _ in range(OUTER):
        planned = pair.reference.inner_steps()
        for done in range(planned):
            assert not pair.pruner.due, f"due after {done} of {planned} steps"
            ours, theirs = pair.step()
            assert ours == pytest.approx(theirs, abs=TOLERANCE), "the loss is taken at Ŵ"
        assert pair.pruner.due
        finish(pair)
        lengths.append(planned)
    assert (len(set(lengths)) > 3) is ("k0" in options), lengths
    if pair.reference.average_from is not None:
        assert_near(pair.tensors("mean"), pair.reference.mean())
        pair.pruner.hard_prune()
        pruned = pair.reference.project(pair.reference.mean())
        assert_near([w for w in pair.model.parameters() if w.dim() >= 2], pruned)


def finish(pair: Pair) -> None:
    """Both dual steps, compared."""
    pair.reference.outer(0.0)
    entry = pair.pruner.update()
    for name, value in pair.reference.log[-1].items():
        assert getattr(entry, name) == pytest.approx(value, abs=TOLERANCE), name
    pair.compare()
    assert isinstance(pair.reference, ReferenceSASADMM)
    assert_near(pair.tensors("momentum_point"), pair.reference.breve)
    for pull, target, theirs in zip(
        pair.tensors("pull"), pair.tensors("target"), pair.reference.multiplier, strict=True
    ):
        torch.testing.assert_close(pull - 0.04 * target, theirs, rtol=0, atol=TOLERANCE)
        assert theirs.abs().max() > 0


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_magnitude(scope: str) -> None:
    class Projected(Reference):
        def step(self, batch: tuple[Tensor, Tensor]) -> float:
            loss = self.task_loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                for p, value in zip(self.parameters(), self.project(self.weights()), strict=True):
                    p.copy_(value)
            return float(loss.detach())

    pair = Pair(Magnitude(), Projected, scope)
    for _ in range(OUTER * STEPS):
        pair.step()
        assert_near(list(pair.model.parameters()), list(pair.reference.model.parameters()))
        zeros = sum(int((p == 0).sum()) for p in pair.model.parameters())
        assert zeros == sum(round(SPARSITY * n) for n in (72, 192))


def test_oneshot_trains_as_if_it_were_not_there() -> None:
    model = net()
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=LR, momentum=0.9) for m in (model, twin)]
    pruner = Pruner(model, optimizers[0], OneShot(), budget=Budget(sparsity=SPARSITY))
    for _ in range(12):
        images, labels = batch()
        for trained, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(images), labels).backward()
            optimizer.step()
        pruner.update()
    pruner.hard_prune()
    weights = [p.detach() for p in twin.parameters() if p.dim() >= 2]
    pruned = [p.detach() for p in model.parameters() if p.dim() >= 2]
    for actual, expected in zip(pruned, project_each(SPARSITY)(weights), strict=True):
        assert torch.equal(actual, expected)
