"""Constrained training with ρ by pull under learning-rate schedules that rise, fall and cycle."""

import copy
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

import detprune as dp
from core_models import HALF, assert_same, batches, pruned_weights, sgd, small_net, train

BATCHES, OUTER, LR = 16, 20, 0.1
STEPS = BATCHES * OUTER
Schedule = Callable[[Optimizer], Any]

PER_BATCH: dict[str, Schedule] = {
    "warm-up": lambda o: lr_scheduler.LinearLR(o, 1 / 17, total_iters=16),
    "warm-up from 0.001": lambda o: lr_scheduler.LinearLR(o, 0.001, total_iters=48),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=LR, total_steps=STEPS),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, LR, step_size_up=24, cycle_momentum=False),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=80, eta_min=1e-4),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [160, 240], gamma=0.3),
}
PER_EPOCH: dict[str, Schedule] = {
    "warm-up": lambda o: lr_scheduler.LinearLR(o, 0.001, total_iters=3),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=OUTER),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=5, eta_min=1e-4),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [10, 15], gamma=0.3),
    "a pause": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: float(not 10 <= epoch < 13)),
}
METHODS: dict[str, dp.Method] = {
    "SLR proximal": dp.SLR(rho="auto"),
    "SLR gradient": dp.SLR(rho="auto", penalty="gradient"),
    "ADMM proximal": dp.ADMM(rho="auto"),
    "ADMM gradient": dp.ADMM(rho="auto", penalty="gradient"),
}


def run(method: dp.Method, schedule: Schedule | None, per_batch: bool) -> tuple[float, float]:
    """Accuracy after hard pruning, and the highest task loss, of a small network at 80 % zeros."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(1024, 32, generator=generator)
    classes = (inputs @ torch.randn(32, 10, generator=generator)).argmax(1)
    batches = list(zip(inputs.split(64), classes.split(64), strict=True))

    def step(optimizer: Optimizer, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.detach()

    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9)
    for batch in batches * 10:
        step(optimizer, batch)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9)
    scheduler, worst = schedule(optimizer) if schedule else None, 0.0
    budget = dp.Budget(sparsity=0.8)
    pruner = dp.Pruner(
        model, optimizer, method, budget=budget, steps_per_update=BATCHES, updates=OUTER
    )
    for _ in range(OUTER):
        for batch in batches:
            loss = step(optimizer, batch)
            if scheduler is not None and per_batch:
                scheduler.step()
            pruner.observe(loss)
            worst = max(worst, float(loss))
        entry = pruner.update()
        assert entry.pull == pytest.approx(0.3 * 10 ** ((entry.k - 1) / (OUTER - 1)))
        if scheduler is not None and not per_batch:
            scheduler.step()
    pruner.hard_prune()
    return float((model(inputs).argmax(1) == classes).float().mean()), worst


@functools.cache
def constant(name: str) -> tuple[float, float]:
    """The run without a schedule."""
    return run(METHODS[name], None, False)


CASES = [(n, s, True) for n, s in PER_BATCH.items()] + [(n, s, False) for n, s in PER_EPOCH.items()]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("schedule", "per_batch"),
    [case[1:] for case in CASES],
    ids=[f"{n} {'per batch' if b else 'per epoch'}" for n, _, b in CASES],
)
def test_no_schedule_costs_accuracy_or_makes_the_loss_explode(
    name: str, schedule: Schedule, per_batch: bool
) -> None:
    accuracy, worst = run(METHODS[name], schedule, per_batch)
    expected, usual = constant(name)
    assert accuracy >= expected - 0.03
    assert worst <= 10 * usual


@pytest.mark.parametrize("name", METHODS)
def test_a_resume_in_the_middle_of_an_outer_iteration_is_exact(name: str) -> None:
    def make(state: dict[str, Any] | None) -> tuple[Any, ...]:
        model = small_net()
        optimizer = sgd(model, lr=0.05)
        scheduler = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=9)
        pruner = dp.Pruner(
            model, optimizer, METHODS[name], budget=HALF, steps_per_update=4, updates=4
        )
        if state is not None:
            for part, saved in zip((model, optimizer, scheduler, pruner), state, strict=True):
                part.load_state_dict(copy.deepcopy(saved))
        return model, optimizer, scheduler, pruner

    def go_on(parts: tuple[Any, ...], steps: range) -> None:
        model, optimizer, scheduler, pruner = parts
        for step in steps:
            train(model, optimizer, data[step : step + 1], pruner)
            scheduler.step()
            if step % 4 == 3:
                pruner.update()

    data = batches(16)
    first = make(None)
    go_on(first, range(6))
    second = make([copy.deepcopy(part.state_dict()) for part in first])
    for parts in (first, second):
        go_on(parts, range(6, 16))
    assert_same(pruned_weights(second[0]), pruned_weights(first[0]))
    assert second[3].history == first[3].history


@pytest.mark.parametrize("name", METHODS)
def test_a_state_of_the_version_before_goes_on(name: str) -> None:
    model = small_net()
    optimizer = sgd(model, lr=0.05)
    lengths = {"steps_per_update": 4, "updates": 4}
    pruner = dp.Pruner(model, optimizer, METHODS[name], budget=HALF, **lengths)
    train(model, optimizer, batches(8), pruner, update_every=4)
    state = copy.deepcopy(pruner.state_dict())
    known = {"k", "rho", "step_size", "previous_loss", "previous_inner", "previous_norm"}
    scalars = state["state"]["scalars"]
    state["state"]["scalars"] = {n: scalars[n] for n in known & set(scalars)} | {"pull": 0.1}
    pruner.load_state_dict(state)
    train(model, optimizer, batches(8), pruner, update_every=4)
    assert [entry.k for entry in pruner.history] == [1, 2, 3, 4]
    assert all(entry.rho and math.isfinite(entry.rho) for entry in pruner.history)


def test_condition_8_compares_sets_of_one_size() -> None:
    """Under a ramp each set is smaller than the one before, and the new Z further from W for that alone."""
    model = small_net()
    optimizer = sgd(model)
    method = dp.SLR(rho=0.1, ramp=1.0)
    pruner = dp.Pruner(model, optimizer, method, budget=HALF, updates=6)
    train(model, optimizer, batches(12), pruner, update_every=2)
    met = [entry.condition_8 for entry in pruner.history]
    assert met == [True] * 6, "the exact projection is better than the old Z, cut to its size"


@pytest.mark.parametrize(
    ("penalty", "rise", "announced", "warned"),
    [
        ("gradient", 1000, False, True),
        ("gradient", 50, False, False),
        ("gradient", 1000, True, False),
        ("proximal", 1000, False, False),
    ],
)
def test_a_learning_rate_that_jumps_is_warned_of_where_momentum_holds_the_penalty(
    penalty: Any, rise: float, announced: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_net()
    optimizer = sgd(model, 1e-5)
    if announced:
        optimizer.param_groups[0]["initial_lr"] = 1e-5 * rise  # as schedules do
    method = dp.ADMM(rho="auto", penalty=penalty)
    pruner = dp.Pruner(model, optimizer, method, budget=HALF, steps_per_update=5, updates=4)
    for number, batch in enumerate(batches(10)):
        if number == 7:
            optimizer.param_groups[0]["lr"] *= rise
        train(model, optimizer, [batch])
        if number == 4:
            pruner.update()
    lines = [r for r in caplog.records if "rose more than 100-fold in one step" in r.getMessage()]
    assert len(lines) == warned


@pytest.mark.parametrize(
    ("rho", "rates", "warned"),
    [
        ("auto", [0.1, 0.0, 0.0, 0.1], "outer iteration 2: .* the penalty alone moved"),
        (0.1, [0.1, 0.0, 0.0, 0.1], "outer iteration 2: .* the multipliers grow"),
        ("auto", [0.1, 0.1, 1e-8, 0.1], None),
    ],
)
@pytest.mark.parametrize("method", [dp.ADMM, dp.SLR])
def test_an_outer_iteration_at_a_learning_rate_of_0_is_warned_of_once(
    method: Any,
    rho: Any,
    rates: list[float],
    warned: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = small_net()
    optimizer = sgd(model)
    lengths = {"steps_per_update": 3, "updates": 4}
    pruner = dp.Pruner(model, optimizer, method(rho=rho), budget=HALF, **lengths)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        train(model, optimizer, batches(3), pruner, update_every=3)
    lines = [r.getMessage() for r in caplog.records if "learning rate was 0" in r.getMessage()]
    assert len(lines) == (warned is not None)
    if warned is not None:
        assert re.search(warned, lines[0])


@pytest.mark.parametrize(
    ("schedule", "per_batch", "warned"),
    [
        pytest.param(lambda o: lr_scheduler.ExponentialLR(o, 0.5), True, 1, id="too fast"),
        pytest.param(lambda o: lr_scheduler.ExponentialLR(o, 0.5), False, 0, id="per epoch"),
        pytest.param(lambda o: lr_scheduler.CosineAnnealingLR(o, 40), True, 0, id="cosine"),
        pytest.param(lambda o: lr_scheduler.StepLR(o, 2, 0.1), False, 1, id="four drops"),
        pytest.param(lambda o: lr_scheduler.MultiStepLR(o, [3, 6, 8]), False, 0, id="three drops"),
    ],
)
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_a_learning_rate_that_falls_to_nearly_0_is_warned_of_once(
    schedule: Schedule,
    per_batch: bool,
    warned: int,
    penalty: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = dp.Pruner(
        *(model, optimizer, dp.ADMM(rho="auto", penalty=penalty)),
        budget=HALF,
        steps_per_update=4,
        updates=10,
    )
    rates = schedule(optimizer)
    for _ in range(10):
        for batch in batches(4):
            train(model, optimizer, [batch], pruner)
            if per_batch:
                rates.step()
        pruner.update()
        if not per_batch:
            rates.step()
    lines = [r.getMessage() for r in caplog.records if "hardly trains" in r.getMessage()]
    assert len(lines) == warned
    assert not lines or "step it once an epoch" in lines[0]
