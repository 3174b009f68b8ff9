"""ρ worked out from the pull that is wanted, and hyperparameters that methods refuse."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from core_models import HALF, pruned_weights, sgd, small_net, tensors_of
from detprune import ADMM, SASADMM, SLR, Growth, InputError, Method, Pruner, Pull

THROUGH_THE_GRADIENT = ADMM(rho="auto", penalty="gradient")


def by_pull(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    method: Method = THROUGH_THE_GRADIENT,
    **lengths: Any,
) -> Pruner:
    """An ADMM pruner whose ρ is worked out."""
    return Pruner(model, optimizer, method, budget=HALF, **lengths)


def test_the_penalty_is_proximal_where_rho_is_chosen_by_pull() -> None:
    assert ADMM(rho="auto") == ADMM(rho=Pull(0.3, 3.0), penalty="proximal")
    assert SLR(rho=0.1).penalty == ADMM(rho=Growth()).penalty == "gradient"
    with pytest.raises(InputError, match="penalty is 'prox'; allowed are 'gradient', 'proximal'"):
        SLR(rho=0.1, penalty="prox")  # type: ignore[arg-type]


def steps_without_a_task(optimizer: torch.optim.Optimizer, count: int) -> None:
    """Optimizer steps on gradients of zero."""
    for _ in range(count):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rho_by_pull_follows_the_formula_and_grows(momentum: float) -> None:
    model = small_net()
    optimizer = sgd(model, lr=0.02, momentum=momentum)
    pruner = by_pull(optimizer, model, steps_per_update=4, updates=5)
    for _ in range(5):
        steps_without_a_task(optimizer, 4)
        pruner.update()
    geometric = [0.3 * 10 ** (k / 4) for k in range(5)]
    assert [entry.pull for entry in pruner.history] == pytest.approx(geometric)
    assert [entry.rho for entry in pruner.history] == pytest.approx(
        [pull * (1 - momentum) / (0.02 * 4) for pull in geometric]
    )


def test_rho_by_pull_is_over_the_learning_rates_that_acted() -> None:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    pruner = by_pull(optimizer, model, ADMM(rho="auto"), steps_per_update=3, updates=2)
    for lr in (0.0, 1e-4, 0.2):
        optimizer.param_groups[0]["lr"] = lr
        steps_without_a_task(optimizer, 1)
    entry = pruner.update()
    assert entry.rho == pytest.approx(0.3 / 0.2001)
    assert entry.pull == pytest.approx(0.3)
    optimizer.param_groups[0]["lr"] = 0.0  # where many schedules end
    steps_without_a_task(optimizer, 3)
    assert pruner.update().rho == entry.rho


def test_rho_by_pull_follows_the_learning_rate_of_the_pruned_weights() -> None:
    model = small_net()
    biases = [p for p in model.parameters() if p.dim() < 2]
    weights = [p for p in model.parameters() if p.dim() >= 2]
    groups = [{"params": biases, "lr": 0.5}, {"params": weights, "lr": 0.01, "momentum": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=9.0, momentum=0.9)
    pruner = by_pull(optimizer, model, steps_per_update=10, updates=2)
    assert pruner.update().rho == pytest.approx(0.3 * 0.5 / (0.01 * 10))


def schedule_of(name: str, step: int, n: int) -> float:
    """Learning rate at a step of ``n``."""
    return (
        0.05
        * {
            "warm-up": min(1.0, 0.001 + step / (n / 2)),
            "falling": 1.001 - step / n,
            "cyclic": 0.02 + abs((step % 50) / 25 - 1),
            "restarts": 0.001 + (1 + math.cos(math.pi * (step % 40) / 40)) / 2,
            "step": 1.0 if step < n / 2 else 0.01,
            "zero at times": float(step % 3 > 0),
        }[name]
    )


@pytest.mark.parametrize(
    "name", ["warm-up", "falling", "cyclic", "restarts", "step", "zero at times"]
)
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_pull_that_acts_is_the_one_asked_for(name: str, penalty: Any, nesterov: bool) -> None:
    model = small_net(torch.float64)
    optimizer = sgd(model, nesterov=nesterov)
    method = ADMM(rho=Pull(1.0, 1.0), penalty=penalty)
    pruner = by_pull(optimizer, model, method, steps_per_update=200, updates=1)
    anchor = tensors_of(pruner, "anchor")["4.weight"].clone()
    before = float((model[4].weight.detach() - anchor).norm())
    for step in range(200):
        optimizer.param_groups[0]["lr"] = schedule_of(name, step, 200)
        steps_without_a_task(optimizer, 1)
    left = float((model[4].weight.detach() - anchor).norm()) / before
    assert -math.log(left) == pytest.approx(1.0, rel=0.02)
    assert pruner.update().pull == pytest.approx(1.0)


@pytest.mark.parametrize("rho", [Pull(), 0.5])
def test_a_change_of_rho_never_enlarges_the_displacement(rho: float | Pull) -> None:
    model = small_net()
    optimizer = sgd(model, lr=1e-3)
    method = ADMM(rho=rho, penalty="proximal")
    pruner = by_pull(optimizer, model, method, steps_per_update=2, updates=9)
    for lr in (1e-3, 1e-3, 0.1, 1.0, 1e-2, 0.0, 1.0):
        optimizer.param_groups[0]["lr"] = lr
        steps_without_a_task(optimizer, 2)
        pruner.update()
        anchors, targets = tensors_of(pruner, "anchor"), tensors_of(pruner, "target")
        before = {n: float((targets[n] - a).norm()) for n, a in anchors.items()}
        optimizer.param_groups[0]["lr"] = 10 * lr
        steps_without_a_task(optimizer, 1)
        assert all(float((targets[n] - a).norm()) <= before[n] * 1.0001 for n, a in anchors.items())


def test_rho_by_pull_says_what_it_needs() -> None:
    model = small_net()
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(
        InputError, match=r"worked out for SGD .* leave out penalty, or give rho as"
    ):
        by_pull(adam, model, steps_per_update=10, updates=2)
    for lengths in ({}, {"steps_per_update": 10}, {"updates": 2}):
        with pytest.raises(
            InputError, match=r"pass steps_per_update= .* and updates= .* to Pruner"
        ):
            by_pull(sgd(model), model, **lengths)
    with pytest.raises(InputError, match=r"rho is 'atuo', allowed is a finite number > 0"):
        ADMM(rho="atuo")
    for rho in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=rf"rho is {rho}, allowed is a finite number > 0"):
            SLR(rho=rho)
    with pytest.raises(InputError, match=r"pull: end is 0\.3, allowed is .* not below start, 3"):
        Pull(3, 0.3)


def gap_left(method: Method, optimizer: torch.optim.Optimizer, model: nn.Module, n: int) -> float:
    """‖W − A‖ after ``n`` steps without a task, as a share of what it was."""
    pruner = by_pull(optimizer, model, method, steps_per_update=n, updates=1)
    anchors = {name: anchor.clone() for name, anchor in tensors_of(pruner, "anchor").items()}
    before = {name: weight - anchors[name] for name, weight in pruned_weights(model).items()}
    for _ in range(n):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    shares = [
        float((weight - anchors[name]).norm() / before[name].norm())
        for name, weight in pruned_weights(model).items()
    ]
    assert max(shares) - min(shares) < 1e-6
    return shares[0]


@pytest.mark.parametrize("pull", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_a_task_the_gap_shrinks_by_the_pull(pull: float, momentum: float) -> None:
    model = small_net(torch.float64)
    method = ADMM(rho=Pull(pull, pull), penalty="gradient")
    shrunk = gap_left(method, sgd(model, lr=0.01, momentum=momentum), model, 500)
    assert -math.log(shrunk) == pytest.approx(pull, rel=0.05)


@pytest.mark.parametrize("pull", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.002),
        lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.0),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_the_proximal_penalty_pulls_as_it_says_with_any_optimizer(
    pull: float, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    model = small_net(torch.float64)
    method = ADMM(rho=Pull(pull, pull))
    shrunk = gap_left(method, optimizer(model.parameters()), model, 6)
    assert -math.log(shrunk) == pytest.approx(pull, rel=1e-6)


def test_growth_is_capped_and_checked() -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), ADMM(rho=Growth(0.1, 2.0, 0.5)), budget=HALF)
    rhos = [pruner.update().rho for _ in range(5)]
    assert rhos == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    with pytest.raises(InputError, match=r"growth: factor is 0\.9, allowed is a number, 1 or more"):
        Growth(0.1, 0.9)
    with pytest.raises(InputError, match=r"growth: maximum is 0\.05, allowed is .* start, 0\.1"):
        Growth(0.1, 2.0, 0.05)
    with pytest.raises(InputError, match=r"growth: start is 0, allowed is a number > 0"):
        Growth(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SLR(rho=0.1, step_size=0),
            r"SLR: step_size is 0, allowed is a number > 0, or none",
        ),
        (lambda: SLR(rho=0.1, M=1), r"SLR: M is 1, allowed is a number > 1"),
        (lambda: SLR(rho=0.1, r=1), r"SLR: r is 1, allowed is a number between 0 and 1"),
        (
            lambda: SASADMM(tau=0.9, sigma=1.2),
            r"\(tau, sigma\) = \(0\.9, 1\.2\) lies outside .* the reference setting is \(0\.9, 1\.09\)",
        ),
        (lambda: SASADMM(tau=1.1, sigma=0.5), r"tau is 1\.1, allowed is a number up to 1"),
        (lambda: SASADMM(tau=-0.5, sigma=0.4), r"tau \+ sigma > 0"),
        (lambda: SASADMM(beta=0), r"beta is 0, allowed is a number > 0"),
        (lambda: SASADMM(inner_steps=0), r"inner_steps is 0, allowed is a whole number, 1 or more"),
        (lambda: SASADMM(l1=0), r"l1 is 0, allowed is a number > 0, or none"),
        (lambda: SASADMM(average_from=0), r"average_from is 0, allowed is .* from 1, or none"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def steps_and_updates(
    method: Method, stated: int | None, counts: list[int], resumed_at: int | None = None
) -> Pruner:
    """Outer iterations of so many steps each; resumed within one where that is asked for."""
    model = small_net()
    optimizer = sgd(model, lr=0.01)
    length = {"steps_per_update": stated, "updates": len(counts)}
    pruner = Pruner(model, optimizer, method, budget=HALF, **length)
    for done, count in enumerate(counts):
        steps_without_a_task(optimizer, count // 2)
        if resumed_at == done:
            state = pruner.state_dict()
            pruner.detach()
            pruner = Pruner(model, optimizer, method, budget=HALF, **length)
            pruner.load_state_dict(state)
        steps_without_a_task(optimizer, count - count // 2)
        pruner.update(1.0)
    return pruner


@pytest.mark.parametrize("kind", [ADMM, SLR])
@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize(
    ("stated", "counts", "said"),
    [
        (5, [20, 20, 20], "outer iteration 1 had 20 optimizer steps, but .* steps_per_update=5"),
        (20, [5, 5, 5], "outer iteration 1 had 5 optimizer steps, but .* steps_per_update=20"),
        (8, [8, 17, 8, 30], "outer iteration 2 had 17 optimizer steps"),
        (16, [16, 8, 16], "outer iteration 2 had 8 optimizer steps"),  # the batch size was doubled
        (15, [8, 8, 8], "outer iteration 1 had 8 optimizer steps"),  # two batches are accumulated
        (8, [8, 16, 8], "outer iteration 2 had 16 optimizer steps"),
        (8, [8, 14, 5, 8], None),
        (8, [8, 8, 1], None),  # the last one is cut short
        (1, [1, 2, 3], None),  # counts so small that rounding matters
    ],
)
def test_a_number_of_steps_far_from_the_stated_one_is_told_once(
    kind: Any,
    penalty: Any,
    stated: int,
    counts: list[int],
    said: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps_and_updates(kind(rho="auto", penalty=penalty), stated, counts)
    assert len(caplog.records) == (said is not None)
    if said is not None:
        assert re.search(said, caplog.text)
        assert "call update after that many steps" in caplog.text


def test_a_resumed_outer_iteration_is_counted_whole(caplog: pytest.LogCaptureFixture) -> None:
    steps_and_updates(ADMM(rho="auto"), 8, [8, 8, 8], resumed_at=1)
    assert not caplog.records
    steps_and_updates(ADMM(rho="auto"), 8, [8, 20, 8], resumed_at=1)
    assert "outer iteration 2 had 20 optimizer steps" in caplog.text


@pytest.mark.parametrize("method", [ADMM(rho=0.1), SLR(rho=0.1)])
def test_rho_as_a_number_depends_on_no_stated_length(
    method: Method, caplog: pytest.LogCaptureFixture
) -> None:
    steps_and_updates(method, 5, [20, 20])
    steps_and_updates(method, None, [20, 20])
    assert not caplog.records
