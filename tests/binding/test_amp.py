"""GradScaler, with optimizers that unscale themselves and with those that do not."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from core_models import (
    HALF,
    METHOD_EXAMPLES,
    assert_same,
    batches,
    loss_of,
    pruned_weights,
    scalars_of,
    small_net,
    snapshot,
    tensors_of,
    train,
)
from detprune import ADMM, SLR, Method, Pruner

DATA = batches(8)
Loop = Callable[[nn.Module, Optimizer], None]
acting = pytest.mark.parametrize(
    "method",
    [ADMM(rho=0.3), SLR(rho=0.3), METHOD_EXAMPLES["sas_admm"], METHOD_EXAMPLES["magnitude"]],
    ids=["admm", "slr", "sas_admm", "magnitude"],
)


def plain(model: nn.Module, optimizer: Optimizer) -> None:
    """Full precision's loop."""
    train(model, optimizer, DATA)


OPTIMIZERS: dict[str, Callable[[nn.Module, bool], Optimizer]] = {
    "SGD": lambda model, fused: torch.optim.SGD(
        model.parameters(), 0.05, momentum=0.9, fused=fused
    ),
    "Adam": lambda model, fused: torch.optim.Adam(model.parameters(), 0.01, fused=fused),
}


def scaled(scaler: torch.amp.GradScaler, unscale: bool) -> Loop:
    """Mixed precision's loop, on the CPU."""

    def loop(model: nn.Module, optimizer: Optimizer) -> None:
        for batch in DATA:
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch)).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()

    return loop


@acting
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_unscaled_before_the_penalty(
    method: Method, fused: bool, unscale: bool, name: str
) -> None:
    results = []
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for loop in (plain, scaled(scaler, unscale)):
        model = small_net()
        optimizer = OPTIMIZERS[name](model, fused)
        pruner = Pruner(model, optimizer, method, budget=HALF)
        loop(model, optimizer)
        pruner.update(task_loss=1.0)
        loop(model, optimizer)
        results.append(snapshot(model))
    # 1024 is a power of two: scaling and unscaling are exact
    assert_same(results[1], results[0])


@acting
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_infinite_gradients_changes_nothing(
    method: Method, fused: bool, name: str
) -> None:
    model = small_net()
    optimizer = OPTIMIZERS[name](model, fused)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, DATA[:2], pruner, update_every=2)
    train(model, optimizer, DATA[2:3], pruner)
    before, scalars = snapshot(model), dict(scalars_of(pruner))
    kinds = pruner.state_dict()["state"]["tensors"]
    tensors = {kind: {n: t.clone() for n, t in kinds[kind].items()} for kind in kinds}
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, DATA[3])).backward()
    assert model[4].weight.grad is not None
    model[4].weight.grad[0, 0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    after = snapshot(model)
    assert_same(pruned_weights(model), {n: before[n] for n in pruned_weights(model)})
    assert torch.equal(after["4.bias"], before["4.bias"])
    assert scalars_of(pruner) == scalars
    for kind, values in tensors.items():
        assert_same(tensors_of(pruner, kind), values)
    assert pruned_weights(model).keys() == {"0.weight", "4.weight", "6.weight"}
    train(model, optimizer, DATA[4:5])
    assert not torch.equal(model[4].weight, after["4.weight"]), "training goes on"


def test_a_fused_optimizer_goes_on_after_hard_pruning() -> None:
    """It has seen no gradient of the pruned weights as long as SAS-ADMM moved them."""
    models = []
    for fused in (False, True):
        model = small_net()
        optimizer = OPTIMIZERS["SGD"](model, fused)
        pruner = Pruner(model, optimizer, METHOD_EXAMPLES["sas_admm"], budget=HALF)
        train(model, optimizer, DATA, pruner, update_every=4)
        pruner.hard_prune()
        train(model, optimizer, DATA)
        models.append(snapshot(model))
    for key, value in models[0].items():
        torch.testing.assert_close(models[1][key], value, msg=key)
