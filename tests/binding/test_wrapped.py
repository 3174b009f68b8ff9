"""Wrapped optimizers and models, and optimizers that keep a second copy of the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core_models import HALF, batches, loss_of, pruned_weights, sgd, small_net, train, zeros_in
from detprune import ADMM, SLR, InputError, Magnitude, Pruner
from detprune.networks.optimizers import usable_optimizer

DATA = batches(6)
ZEROS = {"0.weight": 36, "4.weight": 256, "6.weight": 12}


class SAM(Optimizer):
    """Sharpness-aware minimisation as it is copied around: two half steps around a base optimizer."""

    def __init__(self, params: Any, base: type[Optimizer], **options: Any) -> None:
        super().__init__(params, options)
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["e"] = 0.05 * p.grad
                p.add_(self.state[p]["e"])
                p.grad = None

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["e"])
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> None:
        closure = torch.enable_grad()(closure)
        self.first_step()
        closure()
        self.second_step()


class ScheduleFree(Optimizer):
    """The two copies of schedule-free SGD: the weights are y in training and x after ``eval``."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def mix(self, share: float) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], share)

    def eval(self) -> None:
        self.mix(1 - 1 / 0.9)

    def train(self) -> None:
        self.mix(1 - 0.9)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, 0.2).sub_(p.grad, alpha=0.1 * group["lr"])
                z.sub_(p.grad, alpha=group["lr"])


class Unhooked(Optimizer):
    """A Lookahead as it is copied around: no call of the base class, so no hooks."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step()


def test_both_ways_of_sharpness_aware_minimisation_reach_the_pruner() -> None:
    for halves in (True, False):
        model = small_net()
        optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05, momentum=0.9)
        pruner = Pruner(model, optimizer, SLR(rho=0.1), budget=HALF)
        assert pruner._optimizer is optimizer.base_optimizer
        for phase in range(2):
            for batch in DATA:
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                if halves:
                    optimizer.first_step()
                    loss_of(model, batch).backward()
                    optimizer.second_step()
                else:
                    optimizer.step(lambda m=model, b=batch: loss_of(m, b).backward())
                pruner.observe(loss)
            if phase == 0:
                assert pruner.update().rho == 0.1
                pruner.hard_prune()
        assert pruner.summary().sparsity == 0.5


class Lone(SAM):
    """Half steps without an optimizer inside."""

    def __init__(self, params: Any) -> None:
        Optimizer.__init__(self, params, {"lr": 0.1})


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda m: Unhooked(sgd(m)),
            r"Unhooked, whose step\(\) runs none .* inside \(\.optimizer\)",
        ),
        (
            lambda m: Lone(m.parameters()),
            "Lone, whose first_step and second_step .* base_optimizer",
        ),
        (lambda m: torch.optim.SGD, r"the class SGD; make one: SGD\(model\.parameters\(\)"),
        (lambda m: [sgd(m), sgd(m)], r"a list; pass one of them, and include="),
        (lambda m: list(m.parameters()), r"a list; pass a torch\.optim\.Optimizer, or None"),
        (lambda m: "sgd", r"a str; pass a torch"),
        (
            lambda m: torch.optim.lr_scheduler.StepLR(sgd(m), 1),
            r"a StepLR; pass .* \(\.optimizer\)",
        ),
        (lambda m: sgd(m).state_dict(), "a dict; pass a torch"),
        (lambda m: m, "a Sequential; pass a torch"),
        (lambda m: 0.1, "a float; pass a torch"),
    ],
)
def test_what_is_no_optimizer_is_refused(
    optimizer: Callable[[nn.Module], Any], message: str
) -> None:
    model = small_net()
    made = optimizer(model)
    with pytest.raises(InputError, match=message):
        Pruner(model, made, ADMM(rho=0.1), budget=HALF)
    pruner = Pruner(model, None, ADMM(rho=0.1), budget=HALF)
    with pytest.raises(InputError, match=message):
        pruner.attach(made)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_second_copies_of_the_weights_are_held_at_zero(mode: str) -> None:
    model = small_net()
    optimizer = ScheduleFree(model.parameters())
    pruner = Pruner(model, optimizer, Magnitude(), budget=HALF)
    train(model, optimizer, DATA, pruner, update_every=3)
    if mode == "eval":
        optimizer.eval()
    pruner.hard_prune()
    if mode == "eval":
        optimizer.train()
    assert zeros_in(pruned_weights(model)) == ZEROS
    train(model, optimizer, DATA)
    for switch in (optimizer.eval, optimizer.train):
        switch()
        assert zeros_in(pruned_weights(model)) == ZEROS
        pruner.summary()


def test_averages_of_asgd_are_held_at_zero() -> None:
    model = small_net()
    optimizer = torch.optim.ASGD(model.parameters(), 0.05, t0=0)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    train(model, optimizer, DATA)
    pruner.hard_prune()
    train(model, optimizer, DATA)
    averages: dict[str, Tensor] = {
        name: optimizer.state[model.get_parameter(name)]["ax"] for name in ZEROS
    }
    assert zeros_in(averages) == ZEROS


def test_fabrics_model_and_optimizer_are_unwrapped() -> None:
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    model = small_net()
    inner = sgd(model)
    wrapped, optimizer = fabric.setup(model, inner)
    pruner = Pruner(wrapped, optimizer, ADMM(rho=0.1), budget=HALF)
    assert pruner.model is model
    assert pruner._optimizer is inner
    for batch in DATA:
        optimizer.zero_grad()
        loss = loss_of(wrapped, batch)
        fabric.backward(loss)
        optimizer.step()
        pruner.observe(loss)
    assert pruner.update().k == 1
    pruner.hard_prune()
    train(wrapped, optimizer, DATA)
    assert pruner.summary().sparsity == 0.5


class AcceleratedOptimizer(Optimizer):
    """As accelerate has it: no call of the base class, everything handed to ``optimizer``."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)


AcceleratedOptimizer.__module__ = "accelerate.optimizer"


def test_accelerates_optimizer_is_unwrapped() -> None:
    inner = sgd(small_net())
    assert usable_optimizer(AcceleratedOptimizer(inner)) is inner
    assert usable_optimizer(inner) is inner


class FullyShardedDataParallel(nn.Module):
    """Named as FSDP's wrapper."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: FullyShardedDataParallel(),
            "FullyShardedDataParallel, which leaves every process",
        ),
        (lambda: nn.Linear, "the model is the class Linear; pass a torch"),
        (lambda: small_net().state_dict(), "the model is OrderedDict; pass a torch"),
        (lambda: None, "the model is NoneType; pass"),
        (lambda: list(small_net().parameters()), "the model is list; pass"),
    ],
)
def test_what_is_no_model_is_refused(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner(model(), None, ADMM(rho=0.1), budget=HALF)
